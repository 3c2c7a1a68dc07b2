"""The block nodes of a running QEMU, found from the node that never changes: the device's own.

The guest's device is attached to a throttle filter named like the device (`disk0`); what is below
it changes with moves and snapshots (drawn in devices/disk.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkernel.host.files import open_regular
from vmkernel.model import ErrorCode, MicaError
from vmkernel.qemu.answers import BlockNode, FdSet
from vmkernel.qemu.errors import QmpCommandError
from vmkernel.qemu.session import Qmp

__all__ = [
    "FileGiven",
    "add_nodes",
    "files_given",
    "give_file",
    "loose_nodes",
    "nodes_below",
    "remove_all_of",
    "remove_nodes",
    "take_file_back",
    "top_format_node",
]

_log = logging.getLogger(__name__)

_OPPOSITE = {
    "object-add": "object-del",
    "netdev_add": "netdev_del",
    "device_add": "device_del",
}
_OWN = re.compile(r"^((?:disk|cdrom)\d+)-(?:format|file|back\d+)(?:-|$)")
_FILE = re.compile(r"^fdset (\S+) (\d{1,20}):(\d{1,20})$", re.ASCII)


@dataclass(frozen=True)
class FileGiven:
    """A file that was given to a running QEMU as a descriptor set."""

    fdset: int
    node: str
    device: int
    inode: int

    @property
    def path(self) -> Path:
        return Path(f"/dev/fdset/{self.fdset}")


async def give_file(
    qmp: Qmp, path: Path, node: str, *, read_only: bool, direct: bool = False
) -> FileGiven:
    """Open a file for a QEMU that can't open it: a jailed one sees only the files of its start.

    This is the only way to give a file to a running QEMU. The set carries the name of the file node
    that is going to have it, and the file's own identity: that is how a later vmkernel knows which
    file it is. QEMU takes the descriptor whose access is what the node asks for.
    """
    flags = os.O_RDONLY if read_only else os.O_RDWR
    if direct:
        flags |= os.O_DIRECT
    fd = await asyncio.to_thread(open_regular, path, flags)
    try:
        found = os.fstat(fd)
        fdset = await qmp.add_fd(fd, f"fdset {node} {found.st_dev}:{found.st_ino}")
    finally:
        os.close(fd)
    return FileGiven(fdset, node, found.st_dev, found.st_ino)


async def files_given(qmp: Qmp) -> list[FileGiven]:
    """The files that `give_file` gave and that were not taken back."""
    found = []
    for fdset in await qmp.ask("query-fdsets", tuple[FdSet, ...]):
        for fd in fdset.fds:
            match = _FILE.match(fd.opaque or "")
            if match is not None:
                found.append(FileGiven(fdset.fdset_id, match[1], int(match[2]), int(match[3])))
    return found


async def take_file_back(qmp: Qmp, node: str) -> None:
    """Remove the descriptor set of a file node that is gone."""
    for given in await files_given(qmp):
        if given.node == node:
            await qmp.remove_fd(given.fdset)


async def add_nodes(qmp: Qmp, commands: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Add objects, nodes, backends and a device in order; if one is refused, those before it are
    removed again.
    """
    done: list[tuple[str, Mapping[str, Any]]] = []
    try:
        for command, arguments in commands:
            await qmp.execute(command, arguments)
            done.append((command, arguments))
    except QmpCommandError:
        for command, arguments in reversed(done):
            with contextlib.suppress(QmpCommandError):
                if command == "blockdev-add":
                    await qmp.execute("blockdev-del", {"node-name": arguments["node-name"]})
                elif command in _OPPOSITE:
                    await qmp.execute(_OPPOSITE[command], {"id": arguments["id"]})
        raise


async def remove_nodes(qmp: Qmp, names: Sequence[str]) -> None:
    """Remove nodes from the top down, and the files given for them."""
    for name in names:
        try:
            await qmp.execute("blockdev-del", {"node-name": name})
        except QmpCommandError as error:
            _log.warning("node %s stays: %s", name, error)
            continue
        await take_file_back(qmp, name)


async def remove_all_of(qmp: Qmp, key: str) -> bool:
    """Remove the nodes of a disk that no device uses, whether they are connected or not, and the
    files given for them; False if some are in use.
    """
    names = await nodes_below(qmp, key)
    names += [name for name in await loose_nodes(qmp) if _key_of(name) == key]
    await remove_nodes(qmp, tuple(dict.fromkeys(names)))
    for given in await files_given(qmp):
        if _key_of(given.node) == key and given.node not in names:
            await qmp.remove_fd(given.fdset)
    left = {node.node_name or "" for node in await _nodes(qmp)}
    return not any(name == key or _key_of(name) == key for name in left)


def _key_of(node: str) -> str | None:
    """The key of a node's disk, by the names in devices/disk.py."""
    match = _OWN.match(node)
    return match[1] if match is not None else None


async def nodes_below(qmp: Qmp, name: str) -> list[str]:
    """A node and all nodes below it, from the top down."""
    found: list[str] = []
    for node in await _nodes(qmp):
        if node.node_name == name:
            _collect(node, found)
            break
    return found


async def loose_nodes(qmp: Qmp) -> list[str]:
    """Our nodes below no device and no job: left by a vmkernel that was killed."""
    nodes = await _nodes(qmp)
    held: set[str] = set()
    names = []
    for node in nodes:
        name = node.node_name or ""
        if _OWN.match(name):
            names.append(name)
            continue
        below: list[str] = []
        _collect(node, below)
        held |= set(below)
    return sorted((n for n in names if n not in held), key=lambda n: ("-file" in n, n))


async def _nodes(qmp: Qmp) -> tuple[BlockNode, ...]:
    return await qmp.ask("query-blockstats", tuple[BlockNode, ...], {"query-nodes": True})


def _collect(node: BlockNode, into: list[str]) -> None:
    """From the top down; not recursive, because QEMU chooses the depth."""
    left = [node]
    while left:
        node = left.pop()
        if node.node_name is not None:
            into.append(node.node_name)
        left.extend(below for below in (node.backing, node.parent) if below is not None)


async def top_format_node(qmp: Qmp, device_id: str) -> str:
    """The format node (qcow2 or raw) that holds a disk's data now; `conflict` if QEMU has no such
    disk.
    """
    for node in await _nodes(qmp):
        below = node.parent
        if node.node_name == device_id and below is not None and below.node_name is not None:
            return below.node_name
    raise MicaError(ErrorCode.CONFLICT, f"QEMU has no disk {device_id} now.")
