"""Where devices sit on the PCI bus: fixed by kind and number, so that adding or removing one device
never moves another, and a guest's names for its devices stay.

q35: pcie.0                                pc: pci.0
  01-0a  devices that exist at most once     01     PIIX3 (ISA, IDE, power management)
         (07: bridge for conventional PCI)   02-07  devices that exist at most once
  10-11  root ports of NICs         08-0f  disks (virtio-blk, NVMe)
  12-19  root ports of disks                 10-1f NICs
  1f     ICH9 (ISA, AHCI, SMBus)

A device that exists at most once names its place in its own module; a test fails if two have one
place, or one is outside its range.

On q35, each NIC and each PCI disk gets its own root port, because only devices on a port can be
added and removed while the guest runs. Ports exist for present devices, and for the lowest few free
numbers: a device plugged in later gets its permanent place. A port that is not the first of its
eight is only detected if the first exists, so that one is added too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import BootTopology, Family
from vmkernel.model import HotPlugSpec

__all__ = ["PCI_DISKS_MAX", "Place", "Slots", "ports_at_start"]

Place = str
"""A device number in hexadecimal, `0x3`, or one with a function, `0x4.0x1`. The function 0 of a
device with several must exist in every machine."""

PCI_DISKS_MAX = {Family.Q35: 64, Family.PC: 8}
"""How many virtio-blk and NVMe disks a machine takes."""

_DISKS_MAX = 64
_NICS_MAX = 16
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
    """Hands out the places of one machine; `begin` adds the ports that they need."""

    def __init__(self, family: Family, args: Arguments) -> None:
        self._family = family
        self._args = args
        self._pci_disks: tuple[int, ...] = ()
        self._conventional = False

    def begin(self, topology: BootTopology, spare: HotPlugSpec) -> None:
        """Know how the machine began; a q35 machine gets its root ports."""
        self._pci_disks = topology.pci_disks
        if self._family is not Family.Q35:
            return
        nics = ports_at_start(
            topology.express_nics, spare.nics, disks=False, others=topology.other_nics
        )
        for number in nics:
            self._port(f"nic{number}.port", _NIC_SLOT, number, chassis=1 + number)
        for number in ports_at_start(
            topology.pci_disks, spare.disks, disks=True, others=topology.other_disks
        ):
            slot = _DISK_SLOT[self._family]
            self._port(f"disk{number}.port", slot, number, chassis=_DISK_CHASSIS + number)

    def at(self, place: Mapping[Family, Place]) -> dict[str, Any]:
        """The place of a device that exists at most once."""
        address = place[self._family]
        found: dict[str, Any] = {"bus": self._root, "addr": address}
        if address.endswith(".0x0"):
            found["multifunction"] = True
        return found

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
        """The place of a disk that is a PCI device: on q35 by its number; on pc, which has few, by
        its rank among those at the start, because none can be plugged there.
        """
        if self._family is Family.Q35:
            return {"bus": f"disk{number}.port", "addr": "0x0"}
        rank = self._pci_disks.index(number)
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
