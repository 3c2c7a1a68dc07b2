"""Network cards: the models differ in their driver's name and bus alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmkernel.devices.arguments import Command
from vmkernel.devices.device import Board, Device, Setting, duplicate_problems
from vmkernel.devices.plan import Family, MachinePlan, NicPlan, TapBackend, number_of
from vmkernel.model import FieldError, NicModel, VmSpec

__all__ = ["NICS", "NIC_KINDS", "NicKind", "add_nic", "link_commands", "netdev_of"]


@dataclass(frozen=True)
class NicKind:
    """A model of NIC."""

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


def add_nic(board: Board, nic: NicPlan) -> None:
    """One card and its backend.

    Without a place in the boot order the card has no option ROM: that saves the guest's firmware
    the time of starting it.
    """
    args, bootindex = board.args, board.order.get(nic.key)
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
        **board.slots.nic(number_of(nic.key), express=kind.express),
        netdev=netdev,
        mac=nic.mac,
        bootindex=bootindex,
        romfile="" if bootindex is None else None,
    )


def _add(board: Board, plan: MachinePlan) -> None:
    for nic in plan.nics:
        add_nic(board, nic)


def _check(spec: VmSpec, _family: Family) -> Iterator[FieldError]:
    yield from duplicate_problems(
        "The MAC address {} is named twice.",
        ((f"/spec/nics/{i}/mac", n.mac) for i, n in enumerate(spec.nics) if n.mac),
    )


def link_commands(spec: VmSpec, key: str | None) -> list[Command]:
    """Plug a card's cable in, or pull it."""
    return [
        ("set_link", {"name": nic.key, "up": nic.connected})
        for nic in spec.nics
        if nic.key is not None and nic.key == key
    ]


def _before_run(spec: VmSpec, _incoming: bool) -> list[Command]:
    """A NIC's cable is connected until it is disconnected."""
    pulled = [nic.key for nic in spec.nics if not nic.connected]
    return [command for key in pulled for command in link_commands(spec, key)]


NICS = Device(
    add=_add,
    check=_check,
    settings={"nics[].connected": Setting(link_commands)},
    before_run=_before_run,
)
