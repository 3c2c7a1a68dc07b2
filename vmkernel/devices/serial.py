"""Serial lines, each on a socket that vmkernel reads.

With QEMU 10 a hub feeds the socket and a ring buffer side by side, so that what the guest wrote
while no vmkernel was connected is not lost.
"""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import SerialPlan

__all__ = ["RINGBUF", "SERIAL_PORTS_MAX", "add_serial", "ring_of"]

SERIAL_PORTS_MAX = 4
"""COM1 to COM4."""


def ring_of(port: int) -> str:
    """The name of a line's ring buffer, for QMP."""
    return f"serial{port}-ring"


RINGBUF = ring_of(0)
"""The first line's ring buffer."""


def add_serial(args: Arguments, port: int, plan: SerialPlan) -> None:
    """One line; port 0 is COM1."""
    source = f"serial{port}-socket"
    args.keyval("chardev", "socket", id=source, fd=plan.fd, server=True, wait=False)
    if plan.scrollback_bytes:
        ring, hub = ring_of(port), f"serial{port}-hub"
        args.keyval("chardev", "ringbuf", id=ring, size=plan.scrollback_bytes)
        args.text("chardev", f"hub,id={hub},chardevs.0={source},chardevs.1={ring}")
        source = hub
    args.device("isa-serial", id=f"serial{port}", chardev=source, index=port)
