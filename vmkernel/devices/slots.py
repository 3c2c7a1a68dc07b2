"""Where devices sit on the PCI bus: fixed by kind and number, so that adding or removing one
device never moves another, and a guest's names for its devices stay.

q35: pcie.0                               pc: pci.0
  01    display                             01    PIIX3 (ISA, IDE, power management)
  02    USB controller                      02    display
  03    random numbers                      03    USB controller
  04    virtio-serial (guest agent)         04    .0 panic device, .1 random numbers, .2 balloon,
  05    panic device                              .3 watchdog, .4 vsock
  06    SCSI controller                     05    virtio-serial (guest agent)
  07    bridge for conventional PCI         06    SCSI controller
  08    balloon                             07    AHCI controller
  09    watchdog                            08-0f disks (virtio-blk, NVMe)
  0a    vsock                               10-1f network cards
  10-11 root ports of network cards
  12-19 root ports of disks
  1f    ICH9 (ISA, AHCI, SMBus)

On q35, network cards and PCI disks each get a root port of their own, because only what hangs on
a port can be added and removed while the guest runs. Ports exist for what is there, and for the
lowest few numbers that are free: what is plugged in later gets the place that it keeps. A port that
is not the first of its eight is only seen where the first is there, so that one is added too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import Beginning, Family
from vmkernel.model import HotPlugSpec

__all__ = ["PCI_DISKS_MAX", "Slots", "ports_at_start"]

PCI_DISKS_MAX = {Family.Q35: 64, Family.PC: 8}
"""How many virtio-blk and NVMe disks a machine takes."""

_DISKS_MAX = 64
_NICS_MAX = 16
_FIXED = {
    Family.Q35: {
        "display": "0x1",
        "usb": "0x2",
        "rng": "0x3",
        "agent": "0x4",
        "panic": "0x5",
        "scsi": "0x6",
        "balloon": "0x8",
        "watchdog": "0x9",
        "vsock": "0xa",
    },
    Family.PC: {
        "display": "0x2",
        "usb": "0x3",
        "panic": "0x4.0x0",
        "rng": "0x4.0x1",
        "balloon": "0x4.0x2",
        "watchdog": "0x4.0x3",
        "vsock": "0x4.0x4",
        "agent": "0x5",
        "scsi": "0x6",
        "ahci": "0x7",
    },
}
_CONVENTIONAL_BRIDGE_SLOT = 0x07
_NIC_SLOT = 0x10
_DISK_SLOT = {Family.Q35: 0x12, Family.PC: 0x08}
_FUNCTIONS = 8
_DISK_CHASSIS = 0x40


def ports_at_start(
    used: Collection[int], spare: int, *, disks: bool, others: Collection[int] = ()
) -> tuple[int, ...]:
    """The numbers whose root ports a q35 machine has when it starts with `used` and with `spare`
    free ones. A port whose number one of the `others` has (a disk or card that needs none) is of
    use only once that is gone, so it doesn't count as free; it is there all the same, as machines
    always had it, and a memory image fits a machine with the same ports alone."""
    limit = _DISKS_MAX if disks else _NICS_MAX
    unused = [number for number in range(limit) if number not in used]
    free = [number for number in unused if number not in others]
    wanted = {*used, *unused[:spare], *free[:spare]}
    return tuple(sorted(wanted | {number - number % _FUNCTIONS for number in wanted}))


class Slots:
    """Hands out the places of one machine; `add_ports` adds the ports that they need."""

    def __init__(self, family: Family, args: Arguments) -> None:
        self._family = family
        self._args = args
        self._disks = 0
        self._conventional = False

    def add_ports(self, begun: Beginning, spare: HotPlugSpec) -> None:
        """The root ports of a q35 machine that began like that."""
        if self._family is not Family.Q35:
            return
        nics = ports_at_start(begun.express_nics, spare.nics, disks=False, others=begun.other_nics)
        for number in nics:
            self._port(f"nic{number}.port", _NIC_SLOT, number, chassis=1 + number)
        for number in ports_at_start(
            begun.pci_disks, spare.disks, disks=True, others=begun.other_disks
        ):
            slot = _DISK_SLOT[self._family]
            self._port(f"disk{number}.port", slot, number, chassis=_DISK_CHASSIS + number)

    def fixed(self, name: str) -> dict[str, Any]:
        """The place of a device that exists at most once."""
        address = _FIXED[self._family][name]
        place: dict[str, Any] = {"bus": self._root, "addr": address}
        if address.endswith(".0x0"):
            place["multifunction"] = True
        return place

    def nic(self, number: int, *, express: bool) -> dict[str, Any]:
        """The place of a network card."""
        if self._family is Family.PC:
            return {"bus": self._root, "addr": f"0x{_NIC_SLOT + number:x}"}
        if express:
            return {"bus": f"nic{number}.port", "addr": "0x0"}
        if not self._conventional:
            self._conventional = True
            self._args.device(
                "pcie-pci-bridge",
                id="conventional",
                bus=self._root,
                addr=f"0x{_CONVENTIONAL_BRIDGE_SLOT:x}",
            )
        return {"bus": "conventional", "addr": f"0x{1 + number:x}"}

    def disk(self, number: int) -> dict[str, Any]:
        """The place of a disk that is a PCI device of its own: on q35 by its number, on pc, which
        has few, by its rank."""
        if self._family is Family.Q35:
            return {"bus": f"disk{number}.port", "addr": "0x0"}
        rank = self._disks
        self._disks += 1
        return {"bus": self._root, "addr": f"0x{_DISK_SLOT[self._family] + rank:x}"}

    @property
    def _root(self) -> str:
        return "pcie.0" if self._family is Family.Q35 else "pci.0"

    def _port(self, name: str, slot: int, number: int, *, chassis: int) -> None:
        device, function = slot + number // _FUNCTIONS, number % _FUNCTIONS
        self._args.device(
            "pcie-root-port",
            id=name,
            bus=self._root,
            addr=f"0x{device:x}.0x{function:x}",
            multifunction=True if function == 0 else None,
            chassis=chassis,
        )
