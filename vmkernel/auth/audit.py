"""The audit trail: every refusal and every change, as events; never a secret.

Refusals cost an attacker nothing, so their events are limited: beyond a burst they are counted,
and the next one that is told says how many were not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, Subject

__all__ = ["Audit"]

_log = logging.getLogger(__name__)
_BURST = 20
_PER_SECOND = 1.0


class Audit:
    """Publishes `audit.denied` and `audit.changed` events."""

    def __init__(self, bus: EventBus, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._monotonic = monotonic
        self._credit = float(_BURST)
        self._credited_s = monotonic()
        self._suppressed = 0

    def denied(
        self, request: str, *, actor: str, origin: str, code: ErrorCode, reason: str
    ) -> None:
        """A request was refused."""
        moment = self._monotonic()
        earned = (moment - self._credited_s) * _PER_SECOND
        self._credit = min(float(_BURST), self._credit + earned)
        self._credited_s = moment
        if self._credit < 1:
            self._suppressed += 1
            return
        self._credit -= 1
        suppressed, self._suppressed = self._suppressed, 0
        _log.warning("denied %s to %s from %s: %s", request, actor, origin or "?", reason)
        self._bus.publish(
            "audit.denied",
            Subject(kind="host", id="host"),
            actor=actor,
            message=reason,
            data={
                "request": request,
                "origin": origin,
                "code": code.value,
                "suppressed": suppressed,
            },
        )

    def changed(self, request: str, subject: Subject, *, actor: str, origin: str) -> None:
        """A request that changes something was carried out (or its operation has begun)."""
        self._bus.publish(
            "audit.changed", subject, actor=actor, data={"request": request, "origin": origin}
        )
