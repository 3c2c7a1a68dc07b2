"""Device classes in words, and which of them a host needs a driver for."""

from __future__ import annotations

from vmkernel.model import Severity

__all__ = ["PciClass", "pci_class", "usb_class_name", "usb_class_needs_driver"]

PciClass = tuple[str, Severity | None]
"""Its name, and how important it is if no driver supports it."""

_PCI: dict[str, PciClass] = {
    "0100": ("SCSI controller", Severity.WARNING),
    "0101": ("IDE controller", Severity.WARNING),
    "0104": ("RAID controller", Severity.WARNING),
    "0105": ("ATA controller", Severity.WARNING),
    "0106": ("SATA controller", Severity.WARNING),
    "0107": ("SAS controller", Severity.WARNING),
    "0108": ("NVMe controller", Severity.WARNING),
    "01": ("storage controller", Severity.WARNING),
    "0200": ("Ethernet controller", Severity.WARNING),
    "0207": ("InfiniBand controller", Severity.INFO),
    "0280": ("network controller", Severity.INFO),
    "02": ("network controller", Severity.WARNING),
    "0300": ("VGA controller", Severity.INFO),
    "0302": ("3D controller", None),
    "03": ("display controller", Severity.INFO),
    "04": ("multimedia controller", None),
    "05": ("memory controller", None),
    "0600": ("host bridge", None),
    "0601": ("ISA bridge", None),
    "0604": ("PCI bridge", None),
    "06": ("bridge", None),
    "07": ("communication controller", None),
    "08": ("system peripheral", None),
    "09": ("input controller", None),
    "0b": ("processor", None),
    "0c03": ("USB controller", Severity.WARNING),
    "0c04": ("Fibre Channel controller", Severity.WARNING),
    "0c05": ("SMBus controller", None),
    "0c06": ("InfiniBand controller", Severity.INFO),
    "0c07": ("IPMI interface", None),
    "0c": ("serial bus controller", None),
    "0d": ("wireless controller", None),
    "10": ("encryption controller", None),
    "11": ("signal processing controller", None),
    "12": ("processing accelerator", None),
}
_USB = {
    "01": "audio device",
    "02": "communication device",
    "03": "input device",
    "06": "imaging device",
    "07": "printer",
    "08": "storage device",
    "09": "hub",
    "0a": "communication device",
    "0b": "smart card reader",
    "0e": "video device",
    "e0": "wireless device",
    "ff": "device of its vendor's own class",
}
_USB_NEEDED = ("02", "08", "0a")


def pci_class(code: str) -> PciClass:
    """A PCI class of six hex digits."""
    return _PCI.get(code[:4]) or _PCI.get(code[:2]) or ("device", None)


def usb_class_name(code: str) -> str:
    """A USB class of two hex digits."""
    return _USB.get(code, "device")


def usb_class_needs_driver(code: str) -> bool:
    """True for the USB classes that a host is expected to use itself."""
    return code in _USB_NEEDED
