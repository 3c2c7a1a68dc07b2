"""The block nodes of a running QEMU, found by what stays: the device's own node.

The guest's device is attached to a throttle filter named like the device (`disk0`); what lies below
it changes with moves and snapshots (devices/disk.py draws it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmkernel.model import ErrorCode, MicaError
from vmkernel.qemu.session import Qmp

__all__ = ["top_format_node"]


async def top_format_node(qmp: Qmp, device_id: str) -> str:
    """The format node (qcow2 or raw) that a disk's data are in now; `conflict` where QEMU has no
    such disk."""
    nodes: list[Mapping[str, Any]] = await qmp.execute("query-blockstats", {"query-nodes": True})
    for node in nodes:
        below = node.get("parent") or {}
        if node.get("node-name") == device_id and "node-name" in below:
            return str(below["node-name"])
    raise MicaError(ErrorCode.CONFLICT, f"QEMU has no disk {device_id} now.")
