"""When a virtual machine starts, stops and starts again without being asked each time."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record, Timestamp

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


class RestartPolicy(OpenEnum):
    """What happens after a VM has ended without a request: nothing, a start if it
    crashed, or a start whatever the reason (also if the guest switched itself off)."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    """Restart it after a crash: QEMU ended unexpectedly, or a panic or its watchdog
    ended it."""
    ALWAYS = "always"
    """And if the guest switched itself off."""


class RestartSpec(Record, frozen=True, kw_only=True):
    """Restarting a VM after it ended without a request; the wait before it is one second,
    doubled each time up to five minutes."""

    policy: RestartPolicy = RestartPolicy.NEVER
    max_attempts: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """How often in a row (ten minutes of running reset the count); 0: for ever."""


class WaitFor(OpenEnum):
    """What must be seen of a VM before the next one is started: nothing, or that its guest agent
    answers within `delay_s`."""

    NONE = "none"
    AGENT = "agent"
    """Its guest agent answers, within `delay_s`."""


class AutostartSpec(Record, frozen=True, kw_only=True):
    """Starting with the host."""

    enabled: bool = False
    order: Annotated[int, msgspec.Meta(ge=0, le=9999)] = 100
    """Lower numbers start first; equal numbers start together."""
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    """Seconds to wait after its start before the next VMs start."""
    wait_for: WaitFor = WaitFor.NONE
    """What ends that wait early."""


class StopAction(OpenEnum):
    """How a VM ends with the host; what can't be suspended is shut down."""

    SHUTDOWN = "shutdown"
    SUSPEND = "suspend"
    """To disk; it continues at the next start. If that can't be done, it is shut down."""
    POWER_OFF = "power-off"


class StopSpec(Record, frozen=True, kw_only=True):
    """Ending with the host."""

    order: Annotated[int, msgspec.Meta(ge=0, le=9999)] | None = None
    """Higher numbers stop first; the order of the start if none is given."""
    timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 90.0
    """Seconds after which it is powered off."""
    action: StopAction = StopAction.SHUTDOWN


class OnPanic(OpenEnum):
    """What happens when the guest's kernel reports a panic, in addition to an event; `power-off`
    counts as a crash for the restart policy."""

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
    """When the next one is due; null if none is planned."""


class SecureBootStatus(Record, frozen=True, kw_only=True):
    """The keys in the firmware variables of a VM with Secure Boot, when it last stood still."""

    missing: tuple[str, ...] = ()
    """Certificates of 2023 that it lacks though it trusts those of 2011 which they replace;
    `update-secure-boot` adds them."""
    revoked: int | None = None
    """Entries of dbx, the list of what may not start though it is signed."""
    error: str | None = None
    """Why the variables can't be understood; then nothing else is known."""


class MemoryImageStatus(Record, frozen=True, kw_only=True):
    """The memory of a VM that is suspended to disk."""

    taken_at: Timestamp
    size_bytes: int
    accelerator: str
    """What it ran with, and will again."""
