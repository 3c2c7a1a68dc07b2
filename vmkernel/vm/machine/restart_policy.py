"""When a VM that ended is started again: the restart policy of one VM, without a clock of its own.

an end -> wait 1 s, 2 s, 4 s … 5 min -> start -> (ran for ten minutes: counted from zero) -> an end
…
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmkernel import clock
from vmkernel.model import RestartPolicy, RestartSpec, RestartStatus

__all__ = ["End", "RestartPolicyState"]


class End(StrEnum):
    """Why a VM ended."""

    ASKED = "asked"
    """A request of ours brought it about."""
    FAILED = "failed"
    """QEMU is gone without notice, was ended from outside, or a panic or the watchdog did it."""
    GUEST = "guest"
    """The guest switched itself off."""


@dataclass
class RestartPolicyState:
    """The state of the policy; owned by the VM's task."""

    first_s: float = 1.0
    last_s: float = 300.0
    steady_s: float = 600.0
    """After running for so long, an end is the first one again."""
    attempts: int = 0
    number: int = 0
    """The number of the pending start, or of the last one: an older timer is out of date."""
    due: float | None = None
    """When the waiting start is due (Unix time)."""
    exhausted: bool = False

    def after(self, end: End, spec: RestartSpec, *, ran_s: float, now: float) -> float | None:
        """The wait in seconds before the next start; None if none is wanted."""
        self.cancel()
        if ran_s >= self.steady_s:
            self.attempts = 0
        if not _wanted(end, spec.policy):
            self.attempts = 0
            return None
        if spec.max_attempts and self.attempts >= spec.max_attempts:
            self.exhausted = True
            return None
        wait_s = self.wait_s()
        self.attempts += 1
        self.due = now + wait_s
        return wait_s

    def wait_s(self) -> float:
        """The next wait."""
        return min(self.first_s * 2.0 ** min(self.attempts, 32), self.last_s)

    @property
    def pending(self) -> bool:
        """True if a start is pending."""
        return self.due is not None

    def begin(self) -> None:
        """The start that waited begins."""
        self.due = None

    def cancel(self) -> None:
        """No start waits any more."""
        self.number += 1
        self.due = None
        self.exhausted = False

    def status(self) -> RestartStatus | None:
        """The status for clients; None if nothing was done."""
        if not self.attempts and not self.pending:
            return None
        due = None if self.due is None else clock.format_time(self.due)
        return RestartStatus(attempts=self.attempts, next_at=due)

    def forget(self) -> None:
        """A user acted on the VM: count from zero."""
        self.cancel()
        self.attempts = 0


def _wanted(end: End, policy: RestartPolicy) -> bool:
    match policy:
        case RestartPolicy.NEVER:
            return False
        case RestartPolicy.ON_FAILURE:
            return end is End.FAILED
        case RestartPolicy.ALWAYS:
            return end is not End.ASKED
