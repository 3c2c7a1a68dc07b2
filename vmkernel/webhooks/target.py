"""One webhook's deliveries: a task of its own, so that a receiver that hangs delays no other.

waiting -> a place to send -> sent, up to 16 in one worker -> delivered
   ^                            |-> failed: the delivery goes to the end of the queue, and nothing
   |                                is sent for a while that grows with each failure in a row
   '----------------------------'
Given up is a delivery that failed 12 times or is a day old. The webhook itself is disabled if its
receiver answers 410, or if every attempt of five days failed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from vmkernel import clock
from vmkernel.model import WebhookAttempt, WebhookState, WebhookStatus
from vmkernel.webhooks.signing import headers_for
from vmkernel.webhooks.spool import Delivery, Spool

__all__ = ["Limits", "Message", "Receipt", "Target"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long and how often."""

    first_pause_s: float = 5.0
    factor: float = 3.0
    longest_pause_s: float = 3600.0
    """5 s, 15 s, 45 s … an hour: 12 attempts of one delivery take about six hours."""
    attempts: int = 12
    age_s: float = 24 * 3600.0
    """An event of yesterday says nothing that a list doesn't."""
    disable_after_s: float = 5 * 24 * 3600.0
    """A long weekend, and time to mend the receiver."""
    disable_after_failures: int = 10
    """At least, so that a few events in a quiet week don't do it."""
    batch: int = 16
    """Of one worker: starting it costs more than a request."""


@dataclass(frozen=True)
class Message:
    """One request to a receiver."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Receipt:
    """What became of it."""

    status: int | None = None
    error: str | None = None
    retry_after_s: int | None = None

    @property
    def delivered(self) -> bool:
        """True if the receiver has it."""
        return self.error is None and self.status is not None and 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """Why it was not delivered."""
        return self.error or f"The receiver answered {self.status}."


Send = Callable[[Sequence[Message]], Awaitable[Sequence[Receipt]]]
"""Sends messages one after the other until one fails; a receipt for each that was tried."""


@dataclass
class _Record:
    last_attempt: WebhookAttempt | None = None
    last_delivered_at: str | None = None
    failures: int = 0
    failing_since_s: float | None = None
    next_s: float = 0.0
    delivered: int = 0


@dataclass
class Target:
    """Owned by the event loop's thread; `run` is its task."""

    webhook_id: str
    secret: Callable[[], str]
    send: Send
    spool: Spool
    on_failing: Callable[[str], None]
    """The first failure after success, with the reason."""
    on_disable: Callable[[str], Awaitable[None]]
    limits: Limits = field(default_factory=Limits)
    now_s: Callable[[], float] = time.time
    spread: Callable[[], float] = lambda: random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    _record: _Record = field(default_factory=_Record)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False

    def add(self, message_id: str, body: bytes) -> None:
        """Queue an event."""
        self.spool.add(message_id, body, self.now_s())
        self._wake.set()

    def changed(self) -> None:
        """The webhook has another URL or secret, or was enabled again: try at once."""
        self._record.next_s = 0.0
        self._record.failures = 0
        self._record.failing_since_s = None
        self._ended = False
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled, or until the webhook is disabled."""
        while not self._ended:
            self._wake.clear()
            wait_s = self._wait_s()
            if wait_s > 0:
                try:
                    async with asyncio.timeout(None if wait_s == float("inf") else wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            await self._deliver()

    async def ping(self, message_id: str, body: bytes) -> WebhookAttempt:
        """Send a message of its own, now and once."""
        (receipt,) = await self.send([self._message(message_id, body)])
        return self._attempt(receipt)

    def status(self, *, enabled: bool, disabled_reason: str | None) -> WebhookStatus:
        """As clients see it."""
        record = self._record
        state = WebhookState.DISABLED
        if enabled:
            state = WebhookState.FAILING if record.failures else WebhookState.OK
            if record.last_attempt is None:
                state = WebhookState.NEW
        failing = enabled and record.failures > 0
        return WebhookStatus(
            state=state,
            last_attempt=record.last_attempt,
            last_delivered_at=record.last_delivered_at,
            consecutive_failures=record.failures,
            failing_since=_shown(record.failing_since_s) if failing else None,
            next_attempt_at=_shown(record.next_s) if failing and len(self.spool) else None,
            waiting=len(self.spool),
            delivered=record.delivered,
            dropped=self.spool.dropped,
            disabled_reason=disabled_reason,
        )

    def _wait_s(self) -> float:
        """How long there is nothing to send."""
        self._give_up_old()
        if not len(self.spool):
            return float("inf")
        return max(0.0, self._record.next_s - self.now_s())

    def _give_up_old(self) -> None:
        limit_s = self.now_s() - self.limits.age_s
        for delivery in self.spool.first(len(self.spool)):
            if delivery.since_s < limit_s:
                self.spool.drop(delivery)

    async def _deliver(self) -> None:
        # While it fails, one attempt at a time says as much as many.
        count = 1 if self._record.failures else self.limits.batch
        deliveries = self.spool.first(count)
        messages = [self._message(each.message_id, each.body) for each in deliveries]
        receipts = await self.send(messages)
        for delivery, receipt in zip(deliveries, receipts, strict=False):
            self._record.last_attempt = self._attempt(receipt)
            if receipt.delivered:
                self.spool.done(delivery)
                self._succeeded()
                continue
            await self._failed(delivery, receipt)
            return

    def _succeeded(self) -> None:
        record = self._record
        record.failures = 0
        record.failing_since_s = None
        record.next_s = 0.0
        record.delivered += 1
        record.last_delivered_at = clock.now()

    async def _failed(self, delivery: Delivery, receipt: Receipt) -> None:
        record, limits, now_s = self._record, self.limits, self.now_s()
        delivery.attempts += 1
        if delivery.attempts >= limits.attempts:
            self.spool.drop(delivery)
        else:
            self.spool.postpone(delivery)
        record.failures += 1
        pause_s = min(
            limits.longest_pause_s,
            limits.first_pause_s * limits.factor ** min(record.failures - 1, 16),
        )
        pause_s *= self.spread()
        if receipt.retry_after_s is not None:
            pause_s = max(pause_s, min(receipt.retry_after_s, limits.longest_pause_s))
        record.next_s = now_s + pause_s
        if record.failing_since_s is None:
            record.failing_since_s = now_s
            _log.warning("webhook %s fails: %s", self.webhook_id, receipt.reason)
            self.on_failing(receipt.reason)
        if receipt.status == 410:
            await self._disable("The receiver answered 410: it wants no more events.")
        elif (
            record.failures >= limits.disable_after_failures
            and now_s - record.failing_since_s >= limits.disable_after_s
        ):
            days = limits.disable_after_s / 86400
            await self._disable(
                f"Every attempt failed for {days:g} days; the last error: {receipt.reason}"
            )

    async def _disable(self, reason: str) -> None:
        self._ended = True
        await self.on_disable(reason)

    def _message(self, message_id: str, body: bytes) -> Message:
        headers = headers_for(self.secret(), message_id, int(self.now_s()), body)
        return Message(headers, body)

    @staticmethod
    def _attempt(receipt: Receipt) -> WebhookAttempt:
        return WebhookAttempt(
            at=clock.now(),
            delivered=receipt.delivered,
            status=receipt.status,
            error=None if receipt.delivered else receipt.reason,
        )


def _shown(moment_s: float | None) -> str | None:
    return None if moment_s is None else clock.format_time(moment_s)
