"""QEMU's own language: command line, QMP and its events; it starts nothing."""

from vmkernel.qemu import disk_state, guest_panic, memory_image
from vmkernel.qemu.command_line import TCG_CACHE_BYTES, build_arguments
from vmkernel.qemu.domain_events import (
    AgentChannel,
    DeviceGone,
    DeviceKept,
    DiskError,
    GuestEnded,
    GuestPanicked,
    GuestReset,
    Paused,
    QemuEvent,
    ReportsMissed,
    Resumed,
    WatchdogFired,
)
from vmkernel.qemu.errors import QemuError, QmpCommandError, QmpLostError, QmpNonsenseError
from vmkernel.qemu.event_watch import EventWatch
from vmkernel.qemu.link import QmpMessage
from vmkernel.qemu.program import PROGRAM, QemuProgram, probe_qemu
from vmkernel.qemu.session import Qmp, QmpSession, RunState

__all__ = [
    "AgentChannel",
    "DeviceGone",
    "DeviceKept",
    "DiskError",
    "EventWatch",
    "GuestEnded",
    "GuestPanicked",
    "GuestReset",
    "PROGRAM",
    "Paused",
    "QemuError",
    "QemuEvent",
    "QemuProgram",
    "Qmp",
    "QmpCommandError",
    "QmpLostError",
    "QmpMessage",
    "QmpNonsenseError",
    "QmpSession",
    "ReportsMissed",
    "Resumed",
    "RunState",
    "TCG_CACHE_BYTES",
    "WatchdogFired",
    "build_arguments",
    "disk_state",
    "guest_panic",
    "memory_image",
    "probe_qemu",
]
