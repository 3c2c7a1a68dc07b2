"""QEMU's events, in the terms of the VM's states; the only reader of QMP's event names.

QMP event         becomes          note
SHUTDOWN          GuestEnded       QEMU exits right after it
RESET             GuestReset
STOP, RESUME      Paused, Resumed
GUEST_PANICKED    GuestPanicked
WATCHDOG          WatchdogFired    with `poweroff`, QEMU exits right after it and says no SHUTDOWN
BLOCK_IO_ERROR    DiskError        a STOP follows where QEMU pauses the guest
VSERPORT_CHANGE   AgentChannel     of the agent's port
DEVICE_DELETED    DeviceGone       asked for or not
DEVICE_UNPLUG_GUEST_ERROR          DeviceKept
everything else   (nothing)
(too many)        ReportsMissed    put in by the session
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.qemu.link import QmpMessage
from vmkernel.text import clean

__all__ = [
    "AgentChannel",
    "DeviceGone",
    "DeviceKept",
    "DiskError",
    "GuestEnded",
    "GuestPanicked",
    "GuestReset",
    "Paused",
    "QemuEvent",
    "REPEATABLE",
    "ReportsMissed",
    "Resumed",
    "WatchdogFired",
    "translate",
]


@dataclass(frozen=True)
class GuestEnded:
    """The VM is powered off, by the guest or by us."""

    by_guest: bool
    cause: str
    """QEMU's own word, such as `guest-shutdown`, `host-qmp-quit`, `guest-panic`."""


@dataclass(frozen=True)
class GuestReset:
    """The VM restarts."""

    by_guest: bool


@dataclass(frozen=True)
class Paused:
    """The vCPUs are stopped."""


@dataclass(frozen=True)
class Resumed:
    """The vCPUs run."""


@dataclass(frozen=True)
class GuestPanicked:
    """The guest reported that it has crashed."""

    detail: str


AGENT_PORT = "agent0"
"""The device id of the agent's port (devices/agent.py)."""


@dataclass(frozen=True)
class DiskError:
    """A disk request failed on the host."""

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
        """True if QEMU exits because of it."""
        return self.action == "poweroff"


@dataclass(frozen=True)
class DeviceGone:
    device: str


@dataclass(frozen=True)
class DeviceKept:
    """The guest refused to release a device."""

    device: str


@dataclass(frozen=True)
class ReportsMissed:
    """Events arrived faster than they were handled, and some were dropped: query QEMU's state."""


QemuEvent = (
    GuestEnded
    | GuestReset
    | Paused
    | Resumed
    | GuestPanicked
    | DiskError
    | AgentChannel
    | WatchdogFired
    | DeviceGone
    | DeviceKept
    | ReportsMissed
)


REPEATABLE = (GuestPanicked, GuestReset, DiskError, WatchdogFired)
"""Events that say nothing new if the previous one was the same."""


class _Guest(msgspec.Struct):
    guest: bool = False
    reason: str = "unknown"


class _PanicInfo(msgspec.Struct):
    type: str = ""


class _Panic(msgspec.Struct):
    action: str = ""
    info: _PanicInfo | None = None


class _Watchdog(msgspec.Struct):
    action: str = "none"


class _BlockError(msgspec.Struct, rename="kebab"):
    qom_path: str = ""
    device: str = ""
    node_name: str | None = None
    nospace: bool = False
    reason: str = "unknown error"


class _Channel(msgspec.Struct):
    id: str = ""
    open: bool = False


class _Device(msgspec.Struct):
    device: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """A device without an id isn't ours."""


Data = TypeVar("Data")


def translate(message: QmpMessage) -> QemuEvent | None:
    """The domain event for a QMP event; None if nothing depends on it, or it is malformed."""
    try:
        return _translate(message)
    except UndecodableError:
        return None


def _translate(message: QmpMessage) -> QemuEvent | None:
    match message.event:
        case "SHUTDOWN":
            shutdown = _data(message, _Guest)
            return GuestEnded(shutdown.guest, clean(shutdown.reason))
        case "RESET":
            return GuestReset(_data(message, _Guest).guest)
        case "STOP":
            return Paused()
        case "RESUME":
            return Resumed()
        case "GUEST_PANICKED":
            panic = _data(message, _Panic)
            return GuestPanicked(clean(panic.info.type if panic.info else panic.action))
        case "WATCHDOG":
            return WatchdogFired(clean(_data(message, _Watchdog).action))
        case "BLOCK_IO_ERROR":
            failed = _data(message, _BlockError)
            device = failed.qom_path or failed.device or failed.node_name
            return DiskError(clean(device), failed.nospace, clean(failed.reason))
        case "VSERPORT_CHANGE":
            channel = _data(message, _Channel)
            return AgentChannel(channel.open) if channel.id == AGENT_PORT else None
        case "DEVICE_DELETED":
            gone = _data(message, _Device).device
            return DeviceGone(gone) if gone else None
        case "DEVICE_UNPLUG_GUEST_ERROR":
            kept = _data(message, _Device).device
            return DeviceKept(kept) if kept else None
        case _:
            return None


def _data(message: QmpMessage, kind: type[Data]) -> Data:
    return decode_json(message.data, kind)
