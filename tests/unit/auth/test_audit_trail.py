"""The audit trail: what is kept when there is too much, and what is published."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from vmkernel.auth import Audit, AuditTrail
from vmkernel.auth.caller import ANONYMOUS
from vmkernel.events import EventBus
from vmkernel.model import AuditOutcome, AuditRecord, ErrorCode, Event, Subject

HOST = Subject(kind="host", id="host")


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The present time."""
        return self.seconds


def _all(trail: AuditTrail, limit: int = 7) -> list[AuditRecord]:
    """The whole trail, page by page."""
    found: list[AuditRecord] = []
    while True:
        items, more = trail.list(before=found[-1].id if found else None, limit=limit)
        found += items
        if not more:
            return found


def _change(trail: AuditTrail, actor: str, thing: str, request: str = "vm.update") -> None:
    trail.record(
        AuditOutcome.CHANGED,
        request,
        Subject(kind="vm", id=thing),
        actor=actor,
        origin="192.0.2.1",
    )


def _deny(trail: AuditTrail, actor: str, origin: str, request: str = "vm.list") -> None:
    trail.record(
        AuditOutcome.DENIED,
        request,
        HOST,
        actor=actor,
        origin=origin,
        code=ErrorCode.UNAUTHENTICATED,
        message="No.",
    )


def test_it_is_told_newest_first_and_in_pages() -> None:
    trail = AuditTrail()
    for number in range(30):
        _change(trail, "root", f"vm-{number}")
    assert [record.subject.id for record in _all(trail)] == [f"vm-{n}" for n in range(29, -1, -1)]
    items, more = trail.list(before=None, limit=30)
    assert (len(items), more) == (30, False)


def test_what_repeats_is_one_record_that_counts() -> None:
    clock = Clock()
    trail = AuditTrail(monotonic=clock)
    for second in range(0, 400, 4):
        clock.seconds = second
        _change(trail, "op", "web")
    assert [record.count for record in _all(trail)] == [25, 75]


@pytest.mark.parametrize("things", [3, 50_000])
def test_one_actor_cannot_push_out_what_others_did(things: int) -> None:
    trail = AuditTrail(capacity=100, strangers_capacity=20)
    _change(trail, "root", "volume-1", "volume.delete")
    for number in range(40):
        _change(trail, "quiet", f"vm-{number}")
    for number in range(things):
        _change(trail, "loud", f"thing-{number}")
    records = _all(trail)
    actors = Counter(record.actor for record in records)
    assert (actors["root"], actors["quiet"]) == (1, 40)
    assert actors["loud"] == min(things, 59)
    if things > 59:
        assert records[0].subject.id == f"thing-{things - 1}"


def test_strangers_push_out_no_token_and_not_each_other() -> None:
    trail = AuditTrail(capacity=100, strangers_capacity=20)
    _deny(trail, "viewer", "192.0.2.1", "vm.delete")
    _deny(trail, ANONYMOUS, "198.51.100.7")
    for number in range(5000):
        _deny(trail, ANONYMOUS, f"2001:db8::{number:x}", f"request-{number}")
        _deny(trail, ANONYMOUS, "203.0.113.5")
    records = _all(trail)
    assert [r.request for r in records if r.actor == "viewer"] == ["vm.delete"]
    strangers = Counter(r.origin for r in records if r.actor == ANONYMOUS)
    assert strangers["198.51.100.7"] == 1
    assert sum(strangers.values()) == 20
    assert next(r for r in records if r.origin == "203.0.113.5").count == 5000


def test_filters() -> None:
    trail = AuditTrail()
    _change(trail, "root", "a")
    _deny(trail, "viewer", "192.0.2.1")
    _change(trail, "op", "b")
    items, _ = trail.list(before=None, limit=10, actor="op")
    assert [record.subject.id for record in items] == ["b"]
    items, _ = trail.list(before=None, limit=10, outcome=AuditOutcome.DENIED)
    assert [record.actor for record in items] == ["viewer"]


def test_what_senders_make_long_is_cut() -> None:
    trail = AuditTrail()
    trail.record(
        AuditOutcome.DENIED,
        "vm.get",
        Subject(kind="vm", id="x" * 10_000),
        actor="a" * 10_000,
        origin="o" * 10_000,
        message="m" * 10_000,
    )
    (record,) = _all(trail)
    assert max(map(len, (record.subject.id, record.actor, record.origin, record.message))) <= 256


def _denials(audit: Audit, bus: EventBus, *, garbage: int) -> list[Event]:
    async def scenario() -> list[Event]:
        with bus.subscribe() as subscription:
            for number in range(garbage):
                audit.denied(
                    "vm.list",
                    actor=ANONYMOUS,
                    origin=f"203.0.113.{number % 250}",
                    code=ErrorCode.UNAUTHENTICATED,
                    reason="The token is not known.",
                )
            audit.denied(
                "vm.delete",
                actor="viewer",
                origin="203.0.113.1",
                code=ErrorCode.FORBIDDEN,
                reason="A viewer may not.",
            )
            found = []
            while (event := subscription.poll()) is not None:
                found.append(event)
            return found

    return asyncio.run(scenario())


def test_garbage_tokens_do_not_hide_what_a_known_token_was_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = EventBus()
    audit = Audit(bus, monotonic=Clock())
    events = _denials(audit, bus, garbage=10_000)
    assert [event.actor for event in events].count("viewer") == 1
    assert len(events) == 21
    assert len(caplog.records) == 21
    (record,) = audit.trail.list(before=None, limit=1, actor="viewer")[0]
    assert (record.request, record.code) == ("vm.delete", ErrorCode.FORBIDDEN)


def test_one_address_is_published_a_few_times_and_others_go_on() -> None:
    clock = Clock()
    bus = EventBus()
    audit = Audit(bus, monotonic=clock)

    async def scenario() -> list[Event]:
        with bus.subscribe() as subscription:
            for origin in ["203.0.113.1"] * 500 + ["198.51.100.7"]:
                audit.denied(
                    "vm.list",
                    actor=ANONYMOUS,
                    origin=origin,
                    code=ErrorCode.UNAUTHENTICATED,
                    reason="No.",
                )
            found = []
            while (event := subscription.poll()) is not None:
                found.append(event)
            return found

    origins = [
        (event.data["origin"], event.data["suppressed"]) for event in asyncio.run(scenario())
    ]
    assert origins == [("203.0.113.1", 0)] * 5 + [("198.51.100.7", 495)]
    for _ in range(100):
        clock.seconds += 1
        _denials(audit, bus, garbage=2000)
    assert len(audit._buckets) <= 1024
