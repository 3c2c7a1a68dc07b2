"""A USB device's descriptors as the kernel read them, also for a device that isn't authorised
(chapter 9 of the USB specification): a chain of records, each with its length and its kind.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["usb_interface_class"]

_INTERFACE = 4
_CLASS_AT = 5
_MAX_BYTES = 1 << 16
"""Far more than real devices have; the device itself says how long its descriptors are."""


def usb_interface_class(folder: Path) -> str | None:
    """The class of a device's first interface, two hex digits; None if it has no interface.

    `folder` is the device's in sysfs.
    """
    try:
        with (folder / "descriptors").open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError:
        return None
    offset = 0
    while offset + 2 <= len(data):
        length, kind = data[offset], data[offset + 1]
        if kind == _INTERFACE and _CLASS_AT < length <= len(data) - offset:
            return f"{data[offset + _CLASS_AT]:02x}"
        if length < 2:
            return None
        offset += length
    return None
