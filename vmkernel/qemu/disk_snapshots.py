"""Internal snapshots of the qcow2 disks of a running QEMU.

Nodes are named by the disks' keys: the throttle filter on top, which passes the request on to the
format below it (QEMU accepts only a node that has no other parent in the block graph).
"""

from __future__ import annotations

from collections.abc import Sequence

from vmkernel.qemu.errors import QmpCommandError
from vmkernel.qemu.session import Qmp

__all__ = ["delete_disk_snapshot", "take_disk_snapshots"]

_TIMEOUT_S = 120.0


async def take_disk_snapshots(qmp: Qmp, keys: Sequence[str], tag: str) -> None:
    """Keep the content of all these disks, at one instant, under the name `tag`: all or none."""
    if keys:
        actions = [
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": key, "name": tag}}
            for key in keys
        ]
        await qmp.execute("transaction", {"actions": actions}, timeout_s=_TIMEOUT_S)


async def delete_disk_snapshot(qmp: Qmp, key: str, tag: str) -> None:
    """Delete the snapshot; it may be missing already."""
    try:
        await qmp.execute(
            "blockdev-snapshot-delete-internal-sync",
            {"device": key, "name": tag},
            timeout_s=_TIMEOUT_S,
        )
    except QmpCommandError as error:
        if "does not exist" not in str(error):
            raise
