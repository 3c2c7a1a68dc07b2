"""Random numbers for the guest, from QEMU's own generator: the jail needs no device file."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.slots import Slots

__all__ = ["add_rng"]


def add_rng(args: Arguments, slots: Slots) -> None:
    """The virtio random number device."""
    args.object("rng-builtin", "entropy")
    args.device("virtio-rng-pci", id="rng", **slots.fixed("rng"), rng="entropy")
