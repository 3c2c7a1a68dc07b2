"""The event bus: order, gaps, readers at their own pace."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, Event, MicaError, Subject

HOST = Subject(kind="host", id="host")


def _publish(bus: EventBus, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        bus.publish("test", HOST, message=str(number))


def _drain(bus: EventBus, after: str | None) -> list[Event]:
    async def scenario() -> list[Event]:
        with bus.subscribe(after) as subscription:
            found = []
            while (event := subscription.poll()) is not None:
                found.append(event)
            return found

    return asyncio.run(scenario())


FIRST = "000000000000-000000000000"


@given(st.integers(0, 30), st.integers(1, 10))
def test_a_reader_sees_what_is_left_in_order_after_a_mark_of_the_gap(
    count: int, capacity: int
) -> None:
    bus = EventBus(capacity=capacity)
    _publish(bus, count)
    lost, *events = _drain(bus, FIRST)
    assert lost.type == "events.lost"
    expected = [str(number) for number in range(max(0, count - capacity), count)]
    assert [event.message for event in events] == expected
    ids = [lost.id, *(event.id for event in events)]
    assert ids == sorted(set(ids))


@given(st.integers(1, 20), st.data())
def test_a_reader_goes_on_exactly_where_it_was(count: int, data: st.DataObject) -> None:
    bus = EventBus(capacity=50)
    _publish(bus, count)
    events = _drain(bus, FIRST)[1:]
    at = data.draw(st.integers(0, count - 1))
    assert _drain(bus, events[at].id) == events[at + 1 :]


def test_the_mark_of_a_gap_can_be_resumed_from() -> None:
    bus = EventBus(capacity=3)
    _publish(bus, 5)
    lost, *events = _drain(bus, FIRST)
    assert _drain(bus, lost.id) == events


def test_an_id_of_another_process_or_of_the_future_is_a_gap() -> None:
    bus = EventBus()
    _publish(bus, 2)
    own = _drain(bus, FIRST)[-1].id
    future = own[:-1] + "9"
    assert [event.type for event in _drain(bus, future)] == ["events.lost", "test", "test"]


@pytest.mark.parametrize("after", ["", "x", "0-0", FIRST + "0", FIRST.upper() + "\n"])
def test_what_is_no_id_is_refused(after: str) -> None:
    with pytest.raises(MicaError) as caught:
        EventBus().subscribe(after)
    assert caught.value.problem.code is ErrorCode.INVALID
    assert caught.value.problem.fields[0].pointer == "after"


def test_a_slow_reader_is_told_how_much_it_missed() -> None:
    async def scenario() -> None:
        bus = EventBus(capacity=4)
        with bus.subscribe() as subscription:
            _publish(bus, 10)
            first = await subscription.next()
            assert first is not None
            assert (first.type, first.data) == ("events.lost", {"missed": 6})
            rest = [await subscription.next() for _ in range(4)]
            assert [event.message for event in rest if event] == ["6", "7", "8", "9"]

    asyncio.run(scenario())


def test_readers_wake_up_and_end_with_the_bus() -> None:
    async def scenario() -> None:
        bus = EventBus()
        subscriptions = [bus.subscribe() for _ in range(3)]

        async def read(number: int) -> list[str]:
            return [event.message async for event in subscriptions[number]]

        readers = [asyncio.create_task(read(number)) for number in range(3)]
        await asyncio.sleep(0)
        _publish(bus, 2)
        await asyncio.sleep(0)
        _publish(bus, 1, start=2)
        bus.close()
        assert await asyncio.gather(*readers) == [["0", "1", "2"]] * 3

    asyncio.run(scenario())


def test_a_subscription_begins_at_its_making() -> None:
    async def scenario() -> None:
        bus = EventBus()
        _publish(bus, 1)
        subscription = bus.subscribe()
        _publish(bus, 1, start=1)
        event = await subscription.next()
        assert event is not None
        assert event.message == "1"

    asyncio.run(scenario())
