"""When a virtual machine starts, stops and starts again without being asked each time."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Timestamp, WireEnum, WireModel

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


class RestartPolicy(WireEnum):
    """What happens after a VM has ended that nobody asked to end: nothing, a start where it
    crashed, or a start whatever the reason (also where the guest switched itself off)."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class RestartSpec(WireModel, frozen=True, kw_only=True):
    """Starting a VM again after an end that nobody asked for; the wait before it is one second,
    doubled each time up to five minutes."""

    policy: RestartPolicy = RestartPolicy.NEVER
    max_attempts: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="How often in a row (ten minutes of running begin anew); 0: for ever.",
        ),
    ] = 0


class WaitFor(WireEnum):
    """What must be seen of a VM before the next one is started: nothing, or that its guest agent
    answers within `delay_s`."""

    NONE = "none"
    AGENT = "agent"


class AutostartSpec(WireModel, frozen=True, kw_only=True):
    """Starting with the host."""

    enabled: bool = False
    order: Annotated[
        int,
        Meta(ge=0, le=9999, description="Lower ones first; those with the same number together."),
    ] = 100
    delay_s: Annotated[
        float,
        Meta(ge=0, le=3600, description="Seconds that the next ones wait after its start."),
    ] = 0.0
    wait_for: Annotated[WaitFor, Meta(description="What ends that wait early.")] = WaitFor.NONE


class StopAction(WireEnum):
    """How a VM ends with the host; what can't be suspended is shut down."""

    SHUTDOWN = "shutdown"
    SUSPEND = "suspend"
    POWER_OFF = "power-off"


class StopSpec(WireModel, frozen=True, kw_only=True):
    """Ending with the host."""

    order: Annotated[
        Annotated[int, Meta(ge=0, le=9999)] | None,
        Meta(description="Higher ones first; the order of the start where none is given."),
    ] = None
    timeout_s: Annotated[
        float, Meta(ge=1, le=3600, description="Seconds after which it is powered off.")
    ] = 90.0
    action: StopAction = StopAction.SHUTDOWN


class OnPanic(WireEnum):
    """What happens when the guest's kernel reports a panic, besides an event; `power-off` counts
    as a crash for the restart policy."""

    NONE = "none"
    PAUSE = "pause"
    RESET = "reset"
    POWER_OFF = "power-off"


class RestartStatus(WireModel, frozen=True, kw_only=True):
    """How the restart policy is at work."""

    attempts: Annotated[int, Meta(description="Starts since the VM last ran for a while.")]
    next_at: Annotated[
        Timestamp | None, Meta(description="When the next one is due; null where nothing waits.")
    ] = None


class SecureBootStatus(WireModel, frozen=True, kw_only=True):
    """The keys in the firmware variables of a VM with Secure Boot, when it last stood still."""

    missing: Annotated[
        tuple[str, ...],
        Meta(
            description="Certificates of 2023 that it lacks though it trusts those of 2011 which"
            " they replace; `update-secure-boot` adds them."
        ),
    ] = ()
    revoked: Annotated[
        int | None,
        Meta(description="Entries of dbx, the list of what may not start though it is signed."),
    ] = None
    error: Annotated[
        str | None,
        Meta(description="Why the variables can't be understood; then nothing else is known."),
    ] = None


class MemoryImageStatus(WireModel, frozen=True, kw_only=True):
    """The memory of a VM that is suspended to disk."""

    taken_at: Timestamp
    size_bytes: int
    accelerator: Annotated[str, Meta(description="What it ran with, and will again.")]
