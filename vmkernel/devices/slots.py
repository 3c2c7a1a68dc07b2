"""Where devices sit on the PCI bus: fixed by kind and index, so that adding or removing one
device never moves another, and a guest's names for its devices stay.

q35: pcie.0                               pc: pci.0
  01    display                             01    PIIX3 (ISA, IDE, power management)
  02    USB controller                      02    display
  03    random numbers                      03    USB controller
  04    virtio-serial (guest agent)         04    random numbers
  05    panic device                        05    virtio-serial (guest agent)
  06    SCSI controller                     06    panic device
  07    bridge for conventional PCI         07    SCSI controller
  08-0f kept for hot-plug                   08    AHCI controller
  10-11 root ports of network cards         09-0f disks (virtio-blk, NVMe)
  12-19 root ports of disks                 10-1f network cards
  1f    ICH9 (ISA, AHCI, SMBus)

On q35, network cards and PCI disks each get a root port of their own, because only what hangs on
a port can be added and removed while the guest runs.
"""

from __future__ import annotations

from typing import Any

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import Family

__all__ = ["PCI_DISKS_MAX", "Slots"]

PCI_DISKS_MAX = {Family.Q35: 64, Family.PC: 7}
"""How many virtio-blk and NVMe disks a machine takes."""

_FIXED = {
    Family.Q35: {"display": 1, "usb": 2, "rng": 3, "agent": 4, "panic": 5, "scsi": 6},
    Family.PC: {"display": 2, "usb": 3, "rng": 4, "agent": 5, "panic": 6, "scsi": 7, "ahci": 8},
}
_CONVENTIONAL_BRIDGE_SLOT = 0x07
_NIC_SLOT = 0x10
_DISK_SLOT = {Family.Q35: 0x12, Family.PC: 0x09}
_FUNCTIONS = 8
_DISK_CHASSIS = 0x40


class Slots:
    """Hands out the places of one machine, and adds the ports and bridges they need."""

    def __init__(self, family: Family, args: Arguments) -> None:
        self._family = family
        self._args = args
        self._disks = 0
        self._conventional = False

    def fixed(self, name: str) -> dict[str, Any]:
        """The place of a device that exists at most once."""
        return {"bus": self._root, "addr": f"0x{_FIXED[self._family][name]:x}"}

    def nic(self, index: int, *, express: bool) -> dict[str, Any]:
        """The place of a network card."""
        if self._family is Family.PC:
            return {"bus": self._root, "addr": f"0x{_NIC_SLOT + index:x}"}
        if express:
            return self._port(f"nic{index}.port", _NIC_SLOT, index, chassis=1 + index)
        if not self._conventional:
            self._conventional = True
            self._args.device(
                "pcie-pci-bridge",
                id="conventional",
                bus=self._root,
                addr=f"0x{_CONVENTIONAL_BRIDGE_SLOT:x}",
            )
        return {"bus": "conventional", "addr": f"0x{1 + index:x}"}

    def disk(self) -> dict[str, Any]:
        """The place of the next disk that is a PCI device of its own."""
        index = self._disks
        self._disks += 1
        slot = _DISK_SLOT[self._family]
        if self._family is Family.PC:
            return {"bus": self._root, "addr": f"0x{slot + index:x}"}
        return self._port(f"pcidisk{index}.port", slot, index, chassis=_DISK_CHASSIS + index)

    @property
    def _root(self) -> str:
        return "pcie.0" if self._family is Family.Q35 else "pci.0"

    def _port(self, name: str, slot: int, index: int, *, chassis: int) -> dict[str, Any]:
        device, function = slot + index // _FUNCTIONS, index % _FUNCTIONS
        self._args.device(
            "pcie-root-port",
            id=name,
            bus=self._root,
            addr=f"0x{device:x}.0x{function:x}",
            multifunction=True if function == 0 else None,
            chassis=chassis,
        )
        return {"bus": name, "addr": "0x0"}
