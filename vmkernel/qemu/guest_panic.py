"""What QEMU does when the guest reports a panic (pvpanic); can be changed while it runs."""

from __future__ import annotations

from vmkernel.model import OnPanic
from vmkernel.qemu.session import Qmp

__all__ = ["set_action"]

_ACTIONS = {
    OnPanic.NONE: "none",
    OnPanic.PAUSE: "pause",
    OnPanic.RESET: "pause",  # and the VM's driver resets it
    OnPanic.POWER_OFF: "shutdown",
}


async def set_action(qmp: Qmp, wanted: OnPanic) -> None:
    """Set what QEMU does after a panic from now on."""
    await qmp.execute("set-action", {"panic": _ACTIONS[wanted]})
