"""Serial lines, each on a socket that vmkernel reads.

With QEMU 10 a hub feeds the socket and a ring buffer side by side, so that what the guest wrote
while no vmkernel was connected is not lost.
"""

from __future__ import annotations

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import MachinePlan

__all__ = ["RINGBUF", "SERIAL", "SERIAL_PORTS_MAX", "ring_of"]

SERIAL_PORTS_MAX = 4
"""COM1 to COM4."""


def ring_of(port: int) -> str:
    """The name of a line's ring buffer, for QMP."""
    return f"serial{port}-ring"


RINGBUF = ring_of(0)
"""The first line's ring buffer."""


def _add(board: Board, plan: MachinePlan) -> None:
    """All lines; port 0 is COM1."""
    args = board.args
    for port, line in enumerate(plan.serial):
        source = f"serial{port}-socket"
        args.keyval("chardev", "socket", id=source, fd=line.fd, server=True, wait=False)
        if line.scrollback_bytes:
            ring, hub = ring_of(port), f"serial{port}-hub"
            args.keyval("chardev", "ringbuf", id=ring, size=line.scrollback_bytes)
            args.text("chardev", f"hub,id={hub},chardevs.0={source},chardevs.1={ring}")
            source = hub
        args.device("isa-serial", id=f"serial{port}", chardev=source, index=port)


SERIAL = Device(add=_add)
