"""The audit trail: every refusal, every change and every access to a guest's data; never a secret.

Each goes into the trail (`audit_trail.py`), which administrators read, and becomes an event.
Refusals cost an attacker nothing, so their events and log lines are limited: per token, per address
without a token, and for all addresses without a token together. Beyond that they are counted, and
the next one that is published says how many were not. The trail has them all.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vmkernel.auth.audit_trail import AuditTrail
from vmkernel.auth.caller import ANONYMOUS
from vmkernel.auth.origins import network_of
from vmkernel.events import EventBus
from vmkernel.model import AuditOutcome, ErrorCode, Subject

__all__ = ["Audit"]

_log = logging.getLogger(__name__)
_HOST = Subject(kind="host", id="host")
_PARTS_S = 300.0
_MAX_PARTS = 1000
_MAX_BUCKETS = 1024
"""The least recent ones are forgotten first."""


@dataclass(frozen=True)
class _Rate:
    burst: float
    per_second: float


_OF_A_TOKEN = _Rate(20, 1.0)
_OF_AN_ADDRESS = _Rate(5, 1 / 60)
_OF_ALL_STRANGERS = _Rate(20, 0.1)
"""A line of the journal is 150 bytes: a day of refusals is 1.3 MB, of the 8 MB that it holds."""


@dataclass
class _Bucket:
    credit: float
    at_s: float
    suppressed: int = 0


class Audit:
    """Publishes `audit.denied`, `audit.changed` and `audit.read` events, and records them."""

    def __init__(
        self,
        bus: EventBus,
        *,
        trail: AuditTrail | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._monotonic = monotonic
        self.trail = trail or AuditTrail(monotonic=monotonic)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._all_strangers = _Bucket(_OF_ALL_STRANGERS.burst, monotonic())
        self._parts: dict[tuple[str, ...], tuple[float, int]] = {}

    def denied(
        self,
        request: str,
        *,
        actor: str,
        origin: str,
        code: ErrorCode,
        reason: str,
        subject: Subject = _HOST,
    ) -> None:
        self.trail.record(
            AuditOutcome.DENIED,
            request,
            subject,
            actor=actor,
            origin=origin,
            code=code,
            message=reason,
        )
        suppressed = self._may_tell(actor, origin)
        if suppressed is None:
            return
        _log.warning("denied %s to %s from %s: %s", request, actor, origin or "?", reason)
        self._bus.publish(
            "audit.denied",
            subject,
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

        `audit.changed` if it changes something, `audit.read` if it reveals a guest's data. A
        request `in_parts` (a download by ranges) is published once in _PARTS_S for each object,
        caller and request; `repeated` then counts those that were not.
        """
        outcome = AuditOutcome.READ if event_type == "audit.read" else AuditOutcome.CHANGED
        self.trail.record(outcome, request, subject, actor=actor, origin=origin)
        data: dict[str, str | int] = {"request": request, "origin": origin}
        if in_parts:
            repeated = self._repeated((request, subject.kind, subject.id, actor, origin))
            if repeated is None:
                return
            data["repeated"] = repeated
        self._bus.publish(event_type, subject, actor=actor, data=data)

    def _may_tell(self, actor: str, origin: str) -> int | None:
        """How many were suppressed since the last published one; None if this one is suppressed
        too.
        """
        if actor != ANONYMOUS:
            return self._take(self._bucket(f"token {actor}", _OF_A_TOKEN), _OF_A_TOKEN)
        everyone = self._all_strangers
        own = self._bucket(f"address {network_of(origin)}", _OF_AN_ADDRESS)
        if self._take(own, _OF_AN_ADDRESS) is None:
            everyone.suppressed += 1
            return None
        return self._take(everyone, _OF_ALL_STRANGERS)

    def _bucket(self, name: str, rate: _Rate) -> _Bucket:
        bucket = self._buckets.pop(name, None) or _Bucket(rate.burst, self._monotonic())
        self._buckets[name] = bucket
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket

    def _take(self, bucket: _Bucket, rate: _Rate) -> int | None:
        moment_s = self._monotonic()
        earned = (moment_s - bucket.at_s) * rate.per_second
        bucket.credit = min(rate.burst, bucket.credit + earned)
        bucket.at_s = moment_s
        if bucket.credit < 1:
            bucket.suppressed += 1
            return None
        bucket.credit -= 1
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed

    def _repeated(self, key: tuple[str, ...]) -> int | None:
        """How many were suppressed since the last published one; None if this one is suppressed
        too.
        """
        moment = self._monotonic()
        told_s, count = self._parts.pop(key, (None, 0))
        if told_s is not None and moment - told_s < _PARTS_S:
            self._parts[key] = (told_s, count + 1)
            return None
        self._parts[key] = (moment, 0)
        if len(self._parts) > _MAX_PARTS:
            del self._parts[next(iter(self._parts))]
        return count
