"""vsock: sockets between guest and host, on a descriptor that vmkernel opened."""

from __future__ import annotations

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan

__all__ = ["VSOCK"]

_PLACE = {Family.Q35: "0xa", Family.PC: "0x4.0x4"}


def _add(board: Board, plan: MachinePlan) -> None:
    """The vhost device; the kernel moves the data."""
    if plan.spec.vsock is None:
        return
    board.args.device(
        "vhost-vsock-pci",
        id="vsock",
        **board.slots.at(_PLACE),
        guest_cid=plan.spec.vsock.cid,
        vhostfd=str(plan.vsock_fd),
    )


VSOCK = Device(add=_add, place=_PLACE)
