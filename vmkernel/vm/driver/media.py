"""The discs in the CD-ROM drives of a running machine."""

from __future__ import annotations

import asyncio
import secrets

from vmkernel.devices import CdromPlan
from vmkernel.devices.hotplug import cdrom_medium_commands
from vmkernel.host.files import status
from vmkernel.model import CdromSpec, MicaError
from vmkernel.qemu import Qmp, QmpCommandError, block_graph, hotplug
from vmkernel.vm.context import VmContext

__all__ = ["change", "holds"]


async def change(host: VmContext, qmp: Qmp, cdrom: CdromSpec) -> None:
    """Make a drive hold what its spec says, whatever it holds, or an earlier attempt has left."""
    key = cdrom.key or ""
    await hotplug.eject(qmp, key)
    await block_graph.remove_all_of(qmp, key)
    if cdrom.image is None:
        return
    node = f"{key}-file-{(tag := secrets.token_hex(3))}"
    path = host.storage.image(cdrom.image).path
    given = await block_graph.give_file(qmp, path, node, read_only=True)
    try:
        plan = CdromPlan.of(cdrom, given.path)
        await block_graph.add_nodes(qmp, cdrom_medium_commands(plan, tag=tag))
        try:
            await hotplug.insert(qmp, key)
        except QmpCommandError:
            await block_graph.remove_nodes(qmp, [key, node])
            raise
    except QmpCommandError:
        await block_graph.take_file_back(qmp, node)
        raise


async def holds(host: VmContext, qmp: Qmp, cdrom: CdromSpec, at_start: str | None) -> bool:
    """True if a drive holds what its spec says; `at_start` is its image at the start."""
    key = cdrom.key or ""
    nodes = await hotplug.inserted(qmp, key)
    if not nodes:
        return cdrom.image is None and not await _left(qmp, key)
    if cdrom.image is None:
        return False
    given = {given.node: given for given in await block_graph.files_given(qmp)}
    mine = next((given[node] for node in nodes if node in given), None)
    if mine is None:
        return cdrom.image == at_start
    try:
        found = await asyncio.to_thread(status, host.storage.image(cdrom.image).path)
    except (MicaError, OSError):
        return False
    return (found.st_dev, found.st_ino) == (mine.device, mine.inode)


async def _left(qmp: Qmp, key: str) -> bool:
    """True if nodes of an earlier try are about."""
    return any(
        name == key or name.startswith(f"{key}-") for name in await block_graph.loose_nodes(qmp)
    )
