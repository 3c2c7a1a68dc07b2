"""The first serial line, on a socket that vmkernel reads.

With QEMU 10 a hub feeds the socket and a ring buffer side by side, so that what the guest wrote
while no vmkernel was connected is not lost.
"""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import SerialPlan

__all__ = ["RINGBUF", "add_serial"]

RINGBUF = "serial0-ring"
"""The ring buffer's name, for QMP."""
_SOCKET = "serial0-socket"
_HUB = "serial0-hub"


def add_serial(args: Arguments, plan: SerialPlan) -> None:
    """COM1."""
    args.keyval("chardev", "socket", id=_SOCKET, fd=plan.fd, server=True, wait=False)
    source = _SOCKET
    if plan.scrollback_bytes:
        args.keyval("chardev", "ringbuf", id=RINGBUF, size=plan.scrollback_bytes)
        args.text("chardev", f"hub,id={_HUB},chardevs.0={_SOCKET},chardevs.1={RINGBUF}")
        source = _HUB
    args.device("isa-serial", id="serial0", chardev=source, index=0)
