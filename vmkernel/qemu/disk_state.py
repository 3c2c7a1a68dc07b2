"""Why QEMU stopped the guest at a disk request."""

from __future__ import annotations

from typing import Any

from vmkernel.qemu.session import Qmp

__all__ = ["is_full"]


async def is_full(qmp: Qmp) -> bool:
    """True where a request waits for free space."""
    answer: Any = await qmp.execute("query-block")
    return any(device.get("io-status") == "nospace" for device in answer or ())
