"""Lists that say where to follow from, filters, and tickets for browsers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from remote_api.auth import EventTickets
from remote_api.http.application import Application
from remote_api.schema import ApiError
from tests.framework.asgi import Answer, request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import NOW, served, vm
from vmkernel import model
from vmkernel.control import requests

EVENT = model.Event(
    id="0" * 12 + "-" + "0" * 11 + "8",
    time=NOW,
    type="vm.state",
    subject=model.Subject(kind="vm", id="web"),
    object={"id": "web", "revision": 3},
)


def _page() -> requests.Page:
    return requests.Page(items=msgspec.json.encode(vm()))


@pytest.mark.parametrize("path", ["/v1/vms", "/v1/vms/web"])
@on_loop
async def test_what_is_read_says_where_to_follow_from(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as (fake, api):
        fake.position = EVENT.id
        fake.answer(requests.ListVms, _page())
        fake.answer(requests.GetVm, vm())
        first = await request(api, "GET", path)
        assert first.headers["mica-event-id"] == EVENT.id
        known = {"if-none-match": first.headers["etag"]}
        fake.position = EVENT.id[:-1] + "9"
        again = await request(api, "GET", path, headers=known)
        assert (again.status, again.headers["mica-event-id"]) == (304, fake.position)


async def _begun(api: Application, path: str, **more: str) -> Answer:
    return await request(api, "GET", path, leave_after_answer_s=0.2, headers=more)


@on_loop
async def test_stream_asks_for_what_the_query_says_and_brings_objects(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.events = [EVENT]
        fake.position = EVENT.id[:-1] + "7"
        query = "type=vm.*&type=token.created&subject=vm/web&label=env=prod&label=team&after=x"
        answer = await _begun(api, f"/v1/events?{query}")
        assert answer.status == 200
        assert answer.headers["mica-event-id"] == fake.position
        (data,) = [line for line in answer.body.split(b"\n") if line.startswith(b"data:")]
        assert json.loads(data[5:])["object"] == {"id": "web", "revision": 3}
        (asked,) = fake.asked(requests.SubscribeEvents)
        assert asked == requests.SubscribeEvents(
            after="x",
            gapless=True,
            types=("vm.*", "token.created"),
            subjects=("vm/web",),
            labels=("env=prod", "team"),
        )


@on_loop
async def test_the_header_of_a_reconnect_goes_before_the_query_and_is_never_410(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (fake, api):
        await _begun(api, "/v1/events?after=x", **{"last-event-id": EVENT.id})
        (asked,) = fake.asked(requests.SubscribeEvents)
        assert (asked.after, asked.gapless) == (EVENT.id, False)


@on_loop
async def test_what_the_vmkernel_refuses_is_the_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        gone = model.MicaError(model.ErrorCode.GONE, "List again.")
        fake.answer(requests.SubscribeEvents, gone)
        answer = await request(api, "GET", "/v1/events?after=x")
        assert (answer.status, answer.problem) == (410, "gone")
        wrong = model.MicaError.field("type", "No event has that type.")
        fake.answer(requests.SubscribeEvents, wrong)
        answer = await request(api, "GET", "/v1/events?type=x", headers={"last-event-id": "y"})
        assert (answer.status, answer.pointers) == (422, ["type"])


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("after=a&after=b", "after"),
        ("type=", "type"),
        ("subject=" + "x" * 400, "subject"),
        ("&".join(["label=a"] * 33), "label"),
        ("label=%07", "label"),
        ("nonsense=1", "nonsense"),
        ("ticket=%20", "ticket"),
    ],
)
@on_loop
async def test_wrong_parameters_are_named(tmp_path: Path, query: str, pointer: str) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", f"/v1/events?{query}")
        assert (answer.status, answer.pointers) == (422, [pointer])


async def _ticket(api: Application, token: str = "mica_eye_secret") -> str:
    answer = await request(api, "POST", "/v1/events/ticket", token=token)
    assert answer.status == 201
    assert answer.json["events"] == f"/v1/events?ticket={answer.json['ticket']}"
    return str(answer.json["ticket"])


@on_loop
async def test_ticket_stands_for_its_token_again_and_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        ticket = await _ticket(api)
        for _ in range(3):
            answer = await request(
                api,
                "GET",
                f"/v1/events?type=vm.*&ticket={ticket}",
                token=None,
                leave_after_answer_s=0.1,
            )
            assert answer.status == 200
        asked = [c for c in fake.calls if isinstance(c.request, requests.SubscribeEvents)]
        assert [call.token for call in asked] == ["mica_eye_secret"] * 3


@on_loop
async def test_ticket_is_good_for_nothing_else_and_not_when_it_is_wrong(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ListVms, _page())
        ticket = await _ticket(api)
        for path in (
            f"/v1/vms?ticket={ticket}",
            "/v1/events?ticket=" + "x" * 43,
            "/v1/events?ticket=",
            "/v1/events",
        ):
            answer = await request(api, "GET", path, token=None)
            assert answer.status == 401, path
        wrong = await request(api, "GET", f"/v1/events?ticket={ticket}&nonsense=1", token=None)
        assert (wrong.status, wrong.pointers) == (422, ["nonsense"])


@on_loop
async def test_ticket_of_a_token_that_was_revoked_opens_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        ticket = await _ticket(api)
        fake.answer(
            requests.SubscribeEvents,
            model.MicaError(model.ErrorCode.UNAUTHENTICATED, "The token was revoked."),
        )
        answer = await request(api, "GET", f"/v1/events?ticket={ticket}", token=None)
        assert answer.status == 401


@on_loop
async def test_each_user_has_a_share_of_the_tickets(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        for _ in range(16):
            await _ticket(api)
        answer = await request(api, "POST", "/v1/events/ticket", token="mica_eye_secret")
        assert (answer.status, answer.problem) == (429, "rate-limited")
        await _ticket(api, "mica_op_secret")


def _good(box: EventTickets, ticket: str) -> bool:
    try:
        box.token_of(ticket)
    except ApiError:
        return False
    return True


@on_loop
async def test_ticket_ends_unless_it_is_used_in_time() -> None:
    released: list[int] = []
    box = EventTickets(first_use_s=0.05, next_use_s=0.05)
    unused = box.issue("t", lambda: released.append(1))
    used = box.issue("t", lambda: released.append(2))
    stream = box.open(used)
    await asyncio.sleep(0.1)
    assert (_good(box, unused), _good(box, used), released) == (False, True, [1])
    box.close(used, stream)
    box.close(used, box.open(used))
    await asyncio.sleep(0.1)
    assert (_good(box, used), released, len(box)) == (False, [1, 2], 0)


@on_loop
async def test_new_stream_of_a_ticket_ends_the_one_before() -> None:
    box = EventTickets(next_use_s=0.05)
    ticket = box.issue("t", lambda: None)
    first = box.open(ticket)
    second = box.open(ticket)
    assert (first.ended.is_set(), second.ended.is_set()) == (True, False)
    box.close(ticket, first)
    await asyncio.sleep(0.1)
    assert _good(box, ticket), "the one before has no say in it"


@on_loop
async def test_ticket_ends_after_its_life_and_after_its_uses() -> None:
    box = EventTickets(life_s=0.05)
    stream = box.open(ticket := box.issue("t", lambda: None))
    await asyncio.wait_for(stream.ended.wait(), 2)
    assert not _good(box, ticket)
    box = EventTickets(max_uses=3)
    ticket = box.issue("t", lambda: None)
    for _ in range(3):
        box.open(ticket)
    with pytest.raises(ApiError):
        box.open(ticket)
    assert len(box) == 0
