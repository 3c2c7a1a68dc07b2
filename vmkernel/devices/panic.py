"""The panic device: lets a guest say that it has crashed."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.slots import Slots

__all__ = ["add_panic"]


def add_panic(args: Arguments, slots: Slots) -> None:
    """pvpanic on PCI, which needs no ACPI table."""
    args.device("pvpanic-pci", id="panic", **slots.fixed("panic"))
