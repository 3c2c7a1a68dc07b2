"""What one user may have at once, and what is left for others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from remote_api.http.application import Application
from remote_api.http.shares import Shares
from remote_api.schema import ApiError
from tests.framework.asgi import Answer, request
from tests.framework.fake_vmkernel import FakeVmkernel, Streamed
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import JSON, image, served, vm
from vmkernel import model
from vmkernel.control import requests


def _refusal(shares: Shares, user: str, origin: str) -> int:
    with pytest.raises(ApiError) as refused:
        shares.take(user, origin)
    return refused.value.status


def test_a_user_and_an_address_have_a_share() -> None:
    shares = Shares("things", total=6, per_user=2, per_origin=3)
    release = [shares.take("root", "192.0.2.1") for _ in range(2)]
    assert _refusal(shares, "root", "198.51.100.1") == 429
    shares.take("op", "192.0.2.1")
    assert _refusal(shares, "other", "192.0.2.1") == 429
    assert _refusal(shares, "other", "::ffff:192.0.2.1") == 429
    for number in range(3):
        shares.take(f"op-{number}", f"2001:db8:0:{number}::1")
    assert _refusal(shares, "late", "203.0.113.1") == 503
    release[0]()
    release[0]()
    assert shares.taken == 5
    shares.take("late", "203.0.113.1")


def test_an_ipv6_network_is_one_address() -> None:
    shares = Shares("things", total=9, per_user=9, per_origin=2)
    for number in range(2):
        shares.take("root", f"2001:db8::{number}")
    assert _refusal(shares, "root", "2001:db8::ffff:1") == 429
    shares.take("root", "2001:db8:0:1::1")


def test_it_forgets_who_has_nothing() -> None:
    shares = Shares("things", total=9, per_user=9, per_origin=9)
    for number in range(1000):
        with shares.hold(f"user-{number}", f"192.0.2.{number % 250}"):
            assert shares.taken == 1
    assert (shares._users, shares._origins) == ({}, {})


@on_loop
async def test_large_requests_and_answers_have_shares(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        shares = api.state.shares
        held = [shares.bodies.take("op", "", weight=12 << 20)]
        body = b'{"spec": {' + b" " * 20_000 + b'"datastore": "main"}}'
        headers = {**JSON, "if-none-match": "*"}
        for token, status in (("mica_op_secret", 429), ("mica_op_wrong", 401)):
            answer = await request(
                api, "PUT", "/v1/vms/web", token=token, headers=headers, body=body
            )
            assert answer.status == status
        fake.answer(requests.CreateVm, vm())
        answer = await request(api, "PUT", "/v1/vms/web", headers=headers, body=body)
        assert answer.status == 201
        for release in held:
            release()
        shares.answers.per_user = 1 << 16
        fake.answer(requests.TakeScreenshot, requests.Screenshot(png=b"x" * (1 << 17)))
        answer = await request(api, "GET", "/v1/vms/web/screenshot")
        assert (answer.status, answer.problem) == (429, "rate-limited")
        shares.answers.per_user = 1 << 20
        answer = await request(api, "GET", "/v1/vms/web/screenshot")
        assert (answer.status, len(answer.body)) == (200, 1 << 17)
        await asyncio.sleep(0)
        assert (shares.answers.taken, shares.bodies.taken) == (0, 0)


@on_loop
async def test_a_stranger_takes_no_users_places(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        api.state.shares.events.per_user = 1
        fake.answer(
            requests.SubscribeEvents,
            model.MicaError(model.ErrorCode.UNAVAILABLE, "not in this test"),
        )
        for _ in range(3):
            answer = await request(api, "GET", "/v1/events", token="mica_root_guessed")
            assert answer.status == 401
        assert api.state.shares.events.taken == 0


_TAKEN = model.MicaError(model.ErrorCode.CONFLICT, "It is in use.")
Ask = Callable[[FakeVmkernel, Application, str], Awaitable[Answer]]


async def _events(fake: FakeVmkernel, api: Application, token: str) -> Answer:
    """A stream of events, left at once."""
    return await request(api, "GET", "/v1/events", token=token, leave_after_answer_s=0.05)


async def _ticket(fake: FakeVmkernel, api: Application, token: str) -> Answer:
    fake.answer(requests.OpenConsole, Streamed(requests.Done(), socket.socketpair()[0]))
    body = b'{"kind": "serial"}'
    return await request(api, "POST", "/v1/vms/web/console", token=token, headers=JSON, body=body)


async def _upload(fake: FakeVmkernel, api: Application, token: str) -> Answer:
    fake.answer(requests.UploadImage, _TAKEN)
    return await request(
        api,
        "PUT",
        f"/v1/images/x?datastore=main&format=iso&sha256={'0' * 64}",
        token=token,
        headers={"content-type": "application/octet-stream", "if-none-match": "*"},
        body=b"x",
    )


async def _download(fake: FakeVmkernel, api: Application, token: str) -> Answer:
    fake.answer(requests.GetImage, image("x"))
    fake.answer(requests.ReadImage, _TAKEN)
    return await request(api, "GET", "/v1/images/x/data", token=token, headers={"accept": "*/*"})


@pytest.mark.parametrize(
    ("kind", "ask", "good"),
    [
        ("events", _events, 200),
        ("tickets", _ticket, 201),
        ("uploads", _upload, 409),
        ("downloads", _download, 409),
    ],
)
@on_loop
async def test_a_token_at_its_limit_is_told_so_and_another_is_served(
    tmp_path: Path, kind: str, ask: Ask, good: int
) -> None:
    """Of each kind that the API has shares of. `good` is what the call answers else."""
    async with served(tmp_path) as (fake, api):
        shares: Shares = getattr(api.state.shares, kind)
        held = [shares.take("op", f"2001:db8:0:{n}::1") for n in range(shares.per_user)]
        answer = await ask(fake, api, "mica_op_secret")
        assert (answer.status, answer.problem) == (429, "rate-limited")
        assert answer.headers["retry-after"]
        assert (await ask(fake, api, "mica_root_secret")).status == good
        held[0]()
        assert (await ask(fake, api, "mica_op_secret")).status == good
        for release in held:
            release()
        api.state.tickets.close()
        assert shares.taken == 0, "nothing is left of what was asked"
