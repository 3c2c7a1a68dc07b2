"""The guest agent's channel: a virtio serial port that the guest finds by name."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.slots import Slots

__all__ = ["add_agent"]


def add_agent(args: Arguments, slots: Slots, fd: int) -> None:
    """The channel, on a listening socket."""
    args.keyval("chardev", "socket", id="agent", fd=fd, server=True, wait=False)
    args.device("virtio-serial-pci", {"max_ports": 2}, id="virtio-serial", **slots.fixed("agent"))
    args.device(
        "virtserialport",
        id="agent0",
        bus="virtio-serial.0",
        nr=1,
        chardev="agent",
        name="org.qemu.guest_agent.0",
    )
