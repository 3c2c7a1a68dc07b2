"""What QEMU reports, in the words of the VM's own states; the only reader of QMP's event names.

QMP event         becomes          note
SHUTDOWN          GuestEnded       QEMU exits right after it
RESET             GuestReset
STOP, RESUME      Paused, Resumed
GUEST_PANICKED    GuestPanicked
WATCHDOG          WatchdogFired    with `poweroff`, QEMU exits right after it and says no SHUTDOWN
BLOCK_IO_ERROR    DiskError        a STOP follows where QEMU pauses the guest
VSERPORT_CHANGE   AgentChannel     of the agent's port
everything else   (nothing)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AgentChannel",
    "DiskError",
    "GuestEnded",
    "GuestPanicked",
    "GuestReset",
    "Paused",
    "QemuEvent",
    "REPEATABLE",
    "Resumed",
    "WatchdogFired",
    "translate",
]


@dataclass(frozen=True)
class GuestEnded:
    """The virtual machine is switched off, by the guest or by us."""

    by_guest: bool
    cause: str
    """QEMU's own word, such as `guest-shutdown`, `host-qmp-quit`, `guest-panic`."""


@dataclass(frozen=True)
class GuestReset:
    """The virtual machine starts over."""

    by_guest: bool


@dataclass(frozen=True)
class Paused:
    """The virtual processors stand still."""


@dataclass(frozen=True)
class Resumed:
    """The virtual processors run."""


@dataclass(frozen=True)
class GuestPanicked:
    """The guest said that it has crashed."""

    detail: str


AGENT_PORT = "agent0"
"""The device id of the agent's port (devices/agent.py)."""


@dataclass(frozen=True)
class DiskError:
    """A disk request failed on the host's side."""

    device: str
    no_space: bool
    detail: str


@dataclass(frozen=True)
class AgentChannel:
    """A program in the guest opened the agent's channel, or closed it."""

    is_open: bool


@dataclass(frozen=True)
class WatchdogFired:
    """The guest has not fed its watchdog in time."""

    action: str
    """What QEMU does now, in its own word, such as `reset`, `poweroff`, `pause`."""

    @property
    def ends(self) -> bool:
        """True where QEMU exits with it."""
        return self.action == "poweroff"


QemuEvent = (
    GuestEnded
    | GuestReset
    | Paused
    | Resumed
    | GuestPanicked
    | DiskError
    | AgentChannel
    | WatchdogFired
)


REPEATABLE = (GuestPanicked, GuestReset, DiskError, WatchdogFired)
"""What says nothing new where the one before it was the same."""


def translate(message: Mapping[str, Any]) -> QemuEvent | None:
    """The domain event for a QMP event, or None where nothing depends on it."""
    data: Mapping[str, Any] = message.get("data") or {}
    match message.get("event"):
        case "SHUTDOWN":
            return GuestEnded(bool(data.get("guest")), str(data.get("reason", "unknown")))
        case "RESET":
            return GuestReset(bool(data.get("guest")))
        case "STOP":
            return Paused()
        case "RESUME":
            return Resumed()
        case "GUEST_PANICKED":
            info = data.get("info") or {}
            return GuestPanicked(str(info.get("type", data.get("action", ""))))
        case "WATCHDOG":
            return WatchdogFired(str(data.get("action", "none")))
        case "BLOCK_IO_ERROR":
            return DiskError(
                str(data.get("qom-path") or data.get("device") or data.get("node-name", "")),
                bool(data.get("nospace")),
                str(data.get("reason", "unknown error")),
            )
        case "VSERPORT_CHANGE" if data.get("id") == AGENT_PORT:
            return AgentChannel(bool(data.get("open")))
        case _:
            return None
