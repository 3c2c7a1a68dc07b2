"""vsock: sockets between guest and host, on a descriptor that vmkernel opened."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import VsockPlan
from vmkernel.devices.slots import Slots

__all__ = ["add_vsock"]


def add_vsock(args: Arguments, slots: Slots, plan: VsockPlan) -> None:
    """The vhost device; the kernel moves the data."""
    args.device(
        "vhost-vsock-pci",
        id="vsock",
        **slots.fixed("vsock"),
        guest_cid=plan.cid,
        vhostfd=str(plan.fd),
    )
