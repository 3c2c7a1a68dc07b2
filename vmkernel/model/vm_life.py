"""When a VM starts, stops and restarts without a request."""

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
    """What happens after a VM stops without a request: nothing, a restart after a crash, or a
    restart in any case (also after the guest shut down).
    """

    NEVER = "never"
    ON_FAILURE = "on-failure"
    """Restart it after a crash: QEMU exited unexpectedly, or a panic or the watchdog stopped the
    VM."""
    ALWAYS = "always"
    """Restart it also if the guest shut down."""


class RestartSpec(Record, frozen=True, kw_only=True):
    """Restarting a VM that stopped without a request, after one second, doubled each time up to
    five minutes.
    """

    policy: RestartPolicy = RestartPolicy.NEVER
    max_attempts: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """Restarts in a row, reset after ten minutes of running; 0: no limit."""


class WaitFor(OpenEnum):
    """What to wait for before the next VM is started: nothing, or an answer of the guest agent
    within `delay_s`.
    """

    NONE = "none"
    AGENT = "agent"
    """Its guest agent answers, within `delay_s`."""


class AutostartSpec(Record, frozen=True, kw_only=True):
    """Starting the VM with the host."""

    enabled: bool = False
    order: Annotated[int, msgspec.Meta(ge=0, le=9999)] = 100
    """Lower numbers start first; equal numbers start together."""
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    """Seconds to wait before the next VMs start."""
    wait_for: WaitFor = WaitFor.NONE
    """What ends the wait early."""


class StopAction(OpenEnum):
    """How the VM is stopped when the host shuts down; if it can't be suspended, it is shut down."""

    SHUTDOWN = "shutdown"
    SUSPEND = "suspend"
    """Suspend to disk; it continues when the host starts again. If that fails, it is shut down."""
    POWER_OFF = "power-off"


class StopSpec(Record, frozen=True, kw_only=True):
    """Stopping the VM when the host shuts down."""

    order: Annotated[int, msgspec.Meta(ge=0, le=9999)] | None = None
    """Higher numbers stop first; the start order if null."""
    timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 90.0
    """Seconds until it is powered off."""
    action: StopAction = StopAction.SHUTDOWN


class OnPanic(OpenEnum):
    """What happens when the guest's kernel reports a panic, in addition to an event; `power-off`
    counts as a crash for the restart policy."""

    NONE = "none"
    """Only an event; the guest may write its dump and restart itself."""
    PAUSE = "pause"
    RESET = "reset"
    POWER_OFF = "power-off"
    """Power off; counts as a crash for the restart policy."""


class RestartStatus(Record, frozen=True, kw_only=True):
    """What the restart policy has done."""

    attempts: int
    """Restarts since the VM last ran for ten minutes."""
    next_at: Timestamp | None = None
    """When the next restart is due; null if none is planned."""


class SecureBootStatus(Record, frozen=True, kw_only=True):
    """The keys in the firmware variables of a VM with Secure Boot, when it was last off."""

    missing: tuple[str, ...] = ()
    """2023 certificates that it lacks although it trusts the 2011 ones that they replace;
    `update-secure-boot` adds them."""
    revoked: int | None = None
    """Entries of dbx, the list of revoked signatures."""
    error: str | None = None
    """Why the variables can't be read; the other fields are then unknown."""


class MemoryImageStatus(Record, frozen=True, kw_only=True):
    """The saved memory of a suspended VM."""

    taken_at: Timestamp
    size_bytes: int
    accelerator: str
    """The accelerator that it ran with and must resume with."""
