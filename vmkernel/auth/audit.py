"""The audit trail: every refusal, every change and every look at a guest's data, as events; never
a secret.

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
_PARTS_S = 300.0
_MAX_PARTS = 1000


class Audit:
    """Publishes `audit.denied`, `audit.changed` and `audit.read` events."""

    def __init__(self, bus: EventBus, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._monotonic = monotonic
        self._credit = float(_BURST)
        self._credited_s = monotonic()
        self._suppressed = 0
        self._parts: dict[tuple[str, ...], tuple[float, int]] = {}

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

    def done(
        self,
        event_type: str,
        request: str,
        subject: Subject,
        *,
        actor: str,
        origin: str,
        in_parts: bool = False,
    ) -> None:
        """A request was carried out (or its operation has begun).

        `audit.changed` where it changes something, `audit.read` where it hands out a guest's data.
        What comes `in_parts` (a download by ranges) is told once in _PARTS_S for each object,
        caller and request; `repeated` then counts those that were not told.
        """
        data: dict[str, str | int] = {"request": request, "origin": origin}
        if in_parts:
            repeated = self._repeated((request, subject.kind, subject.id, actor, origin))
            if repeated is None:
                return
            data["repeated"] = repeated
        self._bus.publish(event_type, subject, actor=actor, data=data)

    def _repeated(self, key: tuple[str, ...]) -> int | None:
        """How many were not told since the last that was; None where this one is not either."""
        moment = self._monotonic()
        told_s, count = self._parts.pop(key, (None, 0))
        if told_s is not None and moment - told_s < _PARTS_S:
            self._parts[key] = (told_s, count + 1)
            return None
        self._parts[key] = (moment, 0)
        if len(self._parts) > _MAX_PARTS:
            del self._parts[next(iter(self._parts))]
        return count
