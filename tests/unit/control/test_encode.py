"""Answers that can't be sent cost themselves: one item, one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.framework.pages import items_of
from tests.unit.control.test_server import World, _refusal, _run
from vmkernel.auth import Caller
from vmkernel.control import requests
from vmkernel.control.lists import PAGE_BYTES, answer_from
from vmkernel.control.wire import MAX_FRAME_BYTES
from vmkernel.model import ErrorCode, Operation, OperationState, Progress, Subject

BROKEN: dict[str, Any] = {
    "a number": {"progress": Progress(done=1, total=10**30)},
    "a negative number": {"progress": Progress(done=-(10**30))},
    "half a character": {"actor": "\ud800"},
    "no type of ours": {"kind": object()},
    "itself": {},
}


def _operation(number: int, **fields: Any) -> Operation:
    known: dict[str, Any] = {
        "id": f"op-{number:04}",
        "kind": "vm.start",
        "subject": Subject(kind="vm", id="web"),
        "state": OperationState.RUNNING,
        "progress": Progress(),
        "cancellable": False,
        "actor": "admin",
        "created_at": "2026-01-01T00:00:00Z",
    }
    return Operation(**(known | fields))


def _broken(kind: str) -> Operation:
    if kind == "itself":
        nested: list[Any] = []
        nested.append(nested)
        return _operation(1, kind=nested)
    return _operation(1, **BROKEN[kind])


def _answered(items: Sequence[Operation], limit: int = 100) -> requests.Page:
    return asyncio.run(answer_from(requests.ListOperations(limit=limit), items))


@pytest.mark.parametrize("kind", BROKEN)
def test_an_item_that_cant_be_sent_is_left_out(kind: str) -> None:
    items = (_operation(0), _broken(kind), _operation(2), _operation(3))
    page = _answered(items, limit=3)
    assert [item.id for item in items_of(page, Operation)] == ["op-0000", "op-0002"]
    assert page.next == ("op-0002",)


def test_a_page_ends_early_if_its_items_are_large() -> None:
    items = tuple(_operation(number, actor="x" * (PAGE_BYTES // 3)) for number in range(5))
    page = _answered(items)
    assert [item.id for item in items_of(page, Operation)] == ["op-0000", "op-0001"]
    assert page.next == ("op-0001",)
    huge = (_operation(0, actor="x" * (2 * PAGE_BYTES)), _operation(1))
    page = _answered(huge)
    assert [item.id for item in items_of(page, Operation)] == ["op-0000"]
    assert page.next == ("op-0000",)


@pytest.mark.parametrize("kind", [*BROKEN, "too much"])
def test_a_reply_that_cant_be_sent_is_a_failure_of_its_request(tmp_path: Path, kind: str) -> None:
    async def scenario(world: World) -> None:
        async def answer(_: object, __: Caller) -> Operation:
            if kind == "too much":
                return _operation(1, actor="x" * MAX_FRAME_BYTES)
            return _broken(kind)

        world.dispatcher._handlers[requests.GetOperation] = answer
        code = await _refusal(world.client.call(requests.GetOperation(id="a"), token=world.admin))
        assert code is (ErrorCode.UNSUPPORTED if kind == "too much" else ErrorCode.INTERNAL)
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"

    _run(tmp_path, scenario)


def test_an_event_that_cant_be_sent_is_passed_over(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        subject = Subject(kind="vm", id="web")
        subscription = world.client.events(requests.SubscribeEvents(), token=world.admin)
        async with subscription as events:
            world.bus.publish("vm.x", subject, data={"n": 10**30})
            world.bus.publish("vm.y", subject, message="\ud800\x1b[2J", data={"a": "\u202eb"})
            event = await anext(events)
            assert (event.type, event.message, event.data) == ("vm.y", "[2J", {"a": "b"})

    _run(tmp_path, scenario)
