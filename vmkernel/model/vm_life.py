"""When a virtual machine starts, stops and starts again without being asked each time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record, Timestamp

__all__ = [
    "AutostartSpec",
    "MemoryImageStatus",
    "OnPanic",
    "RestartPolicy",
    "RestartSpec",
    "RestartStatus",
    "SecureBootStatus",
    "StopAction",
    "StopSpec",
    "WaitFor",
]


class RestartPolicy(StrEnum):
    """What happens after a VM has ended that nobody asked to end."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    """Start it again where it crashed: QEMU ended without notice, or a panic or its watchdog
    ended it."""
    ALWAYS = "always"
    """And where the guest switched itself off."""


class RestartSpec(Record, frozen=True, kw_only=True):
    """Starting a VM again after an end that nobody asked for.

    The wait before it is one second, doubled each time up to five minutes; ten minutes without
    another end begin anew.
    """

    policy: RestartPolicy = RestartPolicy.NEVER
    max_attempts: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """How often in a row; 0: for ever."""


class WaitFor(StrEnum):
    """What must be seen of a VM before the next one is started."""

    NONE = "none"
    AGENT = "agent"
    """Its guest agent answers, within `delay_s`."""


class AutostartSpec(Record, frozen=True, kw_only=True):
    """Starting with the host."""

    enabled: bool = False
    order: Annotated[int, msgspec.Meta(ge=0, le=9999)] = 100
    """Lower ones first; those with the same number together."""
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    """How long the next ones wait after this one has been started."""
    wait_for: WaitFor = WaitFor.NONE
    """What ends that wait early."""


class StopAction(StrEnum):
    """How a VM ends with the host."""

    SHUTDOWN = "shutdown"
    SUSPEND = "suspend"
    """To disk; it goes on at the next start. Where that can't be done, it is shut down."""
    POWER_OFF = "power-off"


class StopSpec(Record, frozen=True, kw_only=True):
    """Ending with the host."""

    order: Annotated[int, msgspec.Meta(ge=0, le=9999)] | None = None
    """Higher ones first; the order of the start where none is given, so that the end is its
    reverse."""
    timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 90.0
    """After that it is powered off."""
    action: StopAction = StopAction.SHUTDOWN


class OnPanic(StrEnum):
    """What happens when the guest's kernel reports a panic (pvpanic)."""

    NONE = "none"
    """An event; the guest may write its dump and restart itself."""
    PAUSE = "pause"
    RESET = "reset"
    POWER_OFF = "power-off"
    """It counts as a crash for the restart policy."""


class RestartStatus(Record, frozen=True, kw_only=True):
    """How the restart policy is at work."""

    attempts: int
    """Starts since the VM last ran for a while."""
    next_at: Timestamp | None = None
    """When the next one is due; none where nothing waits."""


class SecureBootStatus(Record, frozen=True, kw_only=True):
    """The keys in the firmware variables of a VM with Secure Boot, as they were when it last stood
    still."""

    missing: tuple[str, ...] = ()
    """Certificates of 2023 that it lacks though it trusts those of 2011 which they replace."""
    revoked: int | None = None
    """Entries of dbx, the list of what may not start though it is signed."""
    error: str | None = None
    """Why the variables can't be understood; then nothing else is known."""


class MemoryImageStatus(Record, frozen=True, kw_only=True):
    """The memory of a VM that is suspended to disk."""

    taken_at: Timestamp
    size_bytes: int
    accelerator: str
    """What it ran with, `kvm` or `tcg`, and will again."""
