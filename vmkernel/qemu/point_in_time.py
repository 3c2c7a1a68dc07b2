"""A disk as it was at one instant, readable while the guest continues to write; and the changes
since earlier instants.

  disk0 (throttle) <- guest          scratch (qcow2) over disk0, exported by NBD
     `-- backup job (sync=none): before the guest overwrites a block, the old one goes to scratch

Checkpoints are dirty bitmaps of the disk's format node, named `checkpoint-<name>`: persistent in
qcow2, gone with the QEMU in raw. One transaction makes the instant the same for all disks. Source:
docs/interop/bitmaps.rst and live-block-operations.rst of QEMU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmkernel.qemu import block_graph, block_jobs
from vmkernel.qemu.answers import NamedNode
from vmkernel.qemu.errors import QmpCommandError
from vmkernel.qemu.session import Qmp

__all__ = [
    "Bitmap",
    "DiskPoint",
    "begin",
    "bitmaps",
    "end",
    "end_all",
    "named_nodes",
    "remove_bitmap",
    "serve",
]

CHECKPOINT = "checkpoint-"
_PREFIX = "backup-"
_HANDSHAKE = "handshake-max-seconds"
"""QEMU has it since 10.0; before, and without it, clients are dropped after 10 s."""
_HANDSHAKE_S = 120
"""No other process can connect, and a busy host may be slow; the same as nbd.py's time-out."""


@dataclass(frozen=True)
class Bitmap:
    """A checkpoint of one disk."""

    key: str
    name: str
    dirty_bytes: int
    usable: bool
    persistent: bool


@dataclass(frozen=True)
class DiskPoint:
    """One disk of a backup."""

    key: str
    node: str
    """Its format node."""
    scratch: str
    """The file that receives overwritten blocks, as QEMU opens it."""
    tag: str
    persistent: bool
    since: str | None
    """The checkpoint whose changes are reported."""
    checkpoint: str | None
    """The checkpoint to make."""

    @property
    def name(self) -> str:
        """The name of the export and of the job."""
        return f"{_PREFIX}{self.key}"

    @property
    def scratch_node(self) -> str:
        return f"{_PREFIX}{self.key}-{self.tag}"

    @property
    def file_node(self) -> str:
        return f"{_PREFIX}{self.key}-file-{self.tag}"

    @property
    def delta(self) -> str | None:
        """The bitmap with the changes up to the instant."""
        return None if self.since is None else f"{_PREFIX}{self.key}-delta"


async def bitmaps(qmp: Qmp, nodes: Mapping[str, str]) -> list[Bitmap]:
    """The checkpoints on format nodes, given by the disks' keys."""
    keys = {node: key for key, node in nodes.items()}
    found = []
    for node in await named_nodes(qmp):
        key = keys.get(node.node_name)
        for bitmap in node.dirty_bitmaps if key is not None else ():
            if bitmap.name.startswith(CHECKPOINT):
                found.append(
                    Bitmap(
                        key=key or "",
                        name=bitmap.name.removeprefix(CHECKPOINT),
                        dirty_bytes=bitmap.count,
                        usable=bitmap.recording and not bitmap.inconsistent,
                        persistent=bitmap.persistent,
                    )
                )
    return found


async def named_nodes(qmp: Qmp) -> tuple[NamedNode, ...]:
    """All nodes, with their bitmaps."""
    return await qmp.ask("query-named-block-nodes", tuple[NamedNode, ...], {"flat": True})


async def remove_bitmap(qmp: Qmp, node: str, checkpoint: str) -> None:
    """Remove a checkpoint."""
    await qmp.execute(
        "block-dirty-bitmap-remove", {"node": node, "name": f"{CHECKPOINT}{checkpoint}"}
    )


async def serve(qmp: Qmp, listener_fd: int) -> None:
    """Let QEMU serve NBD on a listening Unix socket of ours."""
    addr = {"addr": {"type": "fd", "data": {"str": "nbd-listener"}}}
    for more in ({_HANDSHAKE: _HANDSHAKE_S}, {}):
        await qmp.name_fd(listener_fd, "nbd-listener")
        try:
            await qmp.execute("nbd-server-start", {**addr, **more})
        except QmpCommandError as error:
            if not more or _HANDSHAKE not in str(error):
                raise
        else:
            return


async def begin(qmp: Qmp, disks: Sequence[DiskPoint]) -> None:
    """Make the instant, and export it; nothing is left if something is refused."""
    try:
        for disk in disks:
            await block_graph.add_nodes(qmp, _nodes(disk))
        await qmp.execute("transaction", {"actions": _actions(disks)})
        for disk in disks:
            export: dict[str, Any] = {
                "type": "nbd",
                "id": disk.name,
                "node-name": disk.scratch_node,
                "name": disk.name,
                "writable": False,
            }
            if disk.delta is not None:
                export["bitmaps"] = [{"node": disk.node, "name": disk.delta}]
            await qmp.execute("block-export-add", export)
    except QmpCommandError:
        await end(qmp, disks)
        for disk in disks:
            if disk.checkpoint is not None:
                with contextlib.suppress(QmpCommandError):
                    await remove_bitmap(qmp, disk.node, disk.checkpoint)
        raise


def _nodes(disk: DiskPoint) -> list[tuple[str, dict[str, Any]]]:
    return [
        (
            "blockdev-add",
            {"driver": "file", "node-name": disk.file_node, "filename": disk.scratch},
        ),
        (
            "blockdev-add",
            {
                "driver": "qcow2",
                "node-name": disk.scratch_node,
                "file": disk.file_node,
                "backing": disk.key,
            },
        ),
    ]


def _actions(disks: Sequence[DiskPoint]) -> list[dict[str, Any]]:
    actions: list[dict[str, Any]] = []

    def act(kind: str, **data: Any) -> None:
        actions.append({"type": kind, "data": {k.replace("_", "-"): v for k, v in data.items()}})

    for disk in disks:
        if disk.delta is not None:
            act("block-dirty-bitmap-add", node=disk.node, name=disk.delta, disabled=True)
            act(
                "block-dirty-bitmap-merge",
                node=disk.node,
                target=disk.delta,
                bitmaps=[f"{CHECKPOINT}{disk.since}"],
            )
        if disk.checkpoint is not None:
            act(
                "block-dirty-bitmap-add",
                node=disk.node,
                name=f"{CHECKPOINT}{disk.checkpoint}",
                persistent=disk.persistent,
            )
    for disk in disks:
        act(
            "blockdev-backup",
            job_id=disk.name,
            device=disk.key,
            target=disk.scratch_node,
            sync="none",
            auto_dismiss=False,
        )
    return actions


async def end(qmp: Qmp, disks: Sequence[DiskPoint]) -> None:
    """Remove a backup's exports, jobs, nodes and bitmaps; missing ones are ignored."""
    for disk in disks:
        with contextlib.suppress(QmpCommandError):
            await qmp.execute("block-export-del", {"id": disk.name, "mode": "hard"})
    with contextlib.suppress(QmpCommandError):
        await qmp.execute("nbd-server-stop")
    for disk in disks:
        await block_jobs.give_up(qmp, disk.name)
        await block_graph.remove_nodes(qmp, [disk.scratch_node, disk.file_node])
        if disk.delta is not None:
            with contextlib.suppress(QmpCommandError):
                await qmp.execute(
                    "block-dirty-bitmap-remove", {"node": disk.node, "name": disk.delta}
                )


async def end_all(qmp: Qmp) -> bool:
    """Remove what a vmkernel left that was killed during a backup; True if there was something."""
    left = [job.name for job in await block_jobs.jobs(qmp) if job.name.startswith(_PREFIX)]
    nodes = await named_nodes(qmp)
    names = [node.node_name for node in nodes]
    ours = sorted(n for n in names if n.startswith(_PREFIX))
    if not left and not ours:
        return False
    with contextlib.suppress(QmpCommandError):
        await qmp.execute("nbd-server-stop")
    for name in left:
        with contextlib.suppress(QmpCommandError):
            await block_jobs.give_up(qmp, name)
    await block_graph.remove_nodes(qmp, sorted(ours, key=lambda n: "-file-" in n))
    for node in nodes:
        for bitmap in node.dirty_bitmaps:
            if bitmap.name.startswith(_PREFIX):
                with contextlib.suppress(QmpCommandError):
                    await qmp.execute(
                        "block-dirty-bitmap-remove",
                        {"node": node.node_name, "name": bitmap.name},
                    )
    return True
