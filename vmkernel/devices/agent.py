"""The guest agent's channel: a virtio serial port that the guest finds by name."""

from __future__ import annotations

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan

__all__ = ["AGENT"]

_PLACE = {Family.Q35: "0x4", Family.PC: "0x5"}


def _add(board: Board, plan: MachinePlan) -> None:
    """The channel, on a listening socket."""
    if plan.agent_fd is None:
        return
    args = board.args
    args.keyval("chardev", "socket", id="agent", fd=plan.agent_fd, server=True, wait=False)
    args.device("virtio-serial-pci", {"max_ports": 2}, id="virtio-serial", **board.slots.at(_PLACE))
    args.device(
        "virtserialport",
        id="agent0",
        bus="virtio-serial.0",
        nr=1,
        chardev="agent",
        name="org.qemu.guest_agent.0",
    )


AGENT = Device(add=_add, place=_PLACE)
