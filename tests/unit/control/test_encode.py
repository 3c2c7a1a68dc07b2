"""Answers that can't be sent cost themselves: one item, one request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.control.test_server import World, _refusal, _run
from vmkernel.auth import Caller
from vmkernel.control import requests
from vmkernel.control.encode import PAGE_BYTES, encode_reply
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


def _read(reply: msgspec.Raw) -> requests.Page[Operation]:
    return msgspec.msgpack.decode(reply, type=requests.Page[Operation])


@pytest.mark.parametrize("kind", BROKEN)
def test_an_item_that_cant_be_sent_is_left_out(kind: str) -> None:
    items = (_operation(0), _broken(kind), _operation(2))
    page = _read(encode_reply(requests.Page[Operation](items=items, more=True)))
    assert [item.id for item in page.items] == ["op-0000", "op-0002"]
    assert page.more


def test_a_page_ends_early_if_its_items_are_large() -> None:
    items = tuple(_operation(number, actor="x" * (PAGE_BYTES // 3)) for number in range(5))
    page = _read(encode_reply(requests.Page[Operation](items=items, more=False)))
    assert [item.id for item in page.items] == ["op-0000", "op-0001"]
    assert page.more
    huge = (_operation(0, actor="x" * (2 * PAGE_BYTES)), _operation(1))
    page = _read(encode_reply(requests.Page[Operation](items=huge, more=False)))
    assert [item.id for item in page.items] == ["op-0000"]
    assert page.more


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
