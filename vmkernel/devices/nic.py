"""Network cards: the models differ in their driver's name and bus alone."""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import NicPlan, TapBackend
from vmkernel.devices.slots import Slots
from vmkernel.model import NicModel

__all__ = ["NIC_KINDS", "NicKind", "add_nic", "netdev_of"]


@dataclass(frozen=True)
class NicKind:
    """A network card's model."""

    driver: str
    express: bool
    """True for PCI Express, false for conventional PCI."""


NIC_KINDS: dict[NicModel, NicKind] = {
    NicModel.VIRTIO: NicKind("virtio-net-pci", express=True),
    NicModel.E1000E: NicKind("e1000e", express=True),
    NicModel.E1000: NicKind("e1000", express=False),
    NicModel.VMXNET3: NicKind("vmxnet3", express=True),
    NicModel.RTL8139: NicKind("rtl8139", express=False),
}


def netdev_of(key: str) -> str:
    """The id of the host's side of a card."""
    return f"{key}-host"


def add_nic(
    args: Arguments, slots: Slots, number: int, nic: NicPlan, *, bootindex: int | None
) -> None:
    """One card and its backend.

    Without a place in the boot order the card has no option ROM: that saves the guest's firmware
    the time of starting it.
    """
    netdev = netdev_of(nic.key)
    backend = nic.backend
    if isinstance(backend, TapBackend):
        vhost = nic.model is NicModel.VIRTIO and backend.vhost_fd is not None
        args.netdev(
            "tap",
            netdev,
            fd=str(backend.fd),
            vhost=vhost or None,
            vhostfd=str(backend.vhost_fd) if vhost else None,
        )
    else:
        args.netdev("user", netdev, ipv4=True, ipv6=True)
    kind = NIC_KINDS[nic.model]
    args.device(
        kind.driver,
        id=nic.key,
        **slots.nic(number, express=kind.express),
        netdev=netdev,
        mac=nic.mac,
        bootindex=bootindex,
        romfile="" if bootindex is None else None,
    )
