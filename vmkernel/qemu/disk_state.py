"""Why QEMU stopped the guest at a disk request."""

from __future__ import annotations

from vmkernel.qemu.answers import BlockDevice
from vmkernel.qemu.session import Qmp

__all__ = ["is_full"]


async def is_full(qmp: Qmp) -> bool:
    """True if a request waits for free space."""
    devices = await qmp.ask("query-block", tuple[BlockDevice, ...])
    return any(device.io_status == "nospace" for device in devices)
