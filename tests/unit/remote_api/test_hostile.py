"""What strangers and clients that don't keep up can hold here, and what they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from remote_api.http import application
from remote_api.http.exchange import MAX_STRANGERS_BODY_BYTES, Exchange, Response
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import JSON, served
from vmkernel.control import requests

CREATE = {**JSON, "if-none-match": "*"}


@pytest.mark.parametrize("chunked", [True, False])
@on_loop
async def test_a_strangers_large_body_is_not_read(tmp_path: Path, chunked: bool) -> None:
    async with served(tmp_path) as (fake, api):
        headers = {**CREATE, "transfer-encoding": "chunked"} if chunked else CREATE
        parts = [b" " * 65536] * 8
        answer = await request(
            api, "PUT", "/v1/vms/web", token="mica_no_body", headers=headers, body=parts
        )
        assert (answer.status, answer.problem) == (401, "unauthenticated")
        assert [type(call.request) for call in fake.calls] == [requests.WhoAmI]
        answer = await request(
            api, "PUT", "/v1/vms/web", token="mica_eye_secret", headers=headers, body=parts
        )
        assert (answer.status, answer.problem) == (403, "forbidden")


@on_loop
async def test_a_claim_is_small(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        body = b'{"code": "' + b"A" * MAX_STRANGERS_BODY_BYTES + b'"}'
        answer = await request(api, "POST", "/v1/claim", token=None, headers=JSON, body=body)
        assert (answer.status, answer.problem) == (413, "too-large")


@pytest.mark.parametrize("name", ["if-match", "if-none-match"])
@on_loop
async def test_a_condition_that_is_not_known_holds_a_change_back(tmp_path: Path, name: str) -> None:
    async with served(tmp_path) as (fake, api):
        answer = await request(api, "POST", "/v1/vms/web/reset", headers={name: '"3"'})
        assert (answer.status, answer.problem) == (400, "malformed")
        assert [pointer.lower() for pointer in answer.pointers] == [name]
        assert fake.asked(requests.ActOnVm) == []


@on_loop
async def test_methods_that_are_allowed(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "POST", "/v1/vms")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        answer = await request(api, "POST", "/v1/events")
        assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/tokens/Bad", {"role": "viewer"}, "lower-case letters, digits and inner hyphens"),
        (
            "/v1/tokens/t",
            {"role": "viewer", "expires_at": "tomorrow"},
            "/spec/expires_at: Not of the form such as 2026-11-23T06:30:00Z (A time",
        ),
        (
            "/v1/vms/web",
            {"datastore": "M"},
            "/spec/datastore: Not of the form such as web-1 (Lower-case",
        ),
        (
            "/v1/vms/web",
            {"datastore": "m", "nics": [{"mac": "x"}]},
            "/spec/nics/0/mac: Not of the form",
        ),
    ],
)
@on_loop
async def test_forms_are_told_in_words(
    tmp_path: Path, path: str, body: dict[str, Any], told: str
) -> None:
    async with served(tmp_path) as (_, api):
        sent = json.dumps({"spec": body}).encode()
        answer = await request(api, "PUT", path, headers=CREATE, body=sent)
        assert told in answer.json["detail"]
        assert "regex" not in answer.json["detail"]


@on_loop
async def test_a_client_that_takes_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "_READER_STALL_S", 0.05)
    ended = asyncio.Event()

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x"
        finally:
            ended.set()

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        raise AssertionError("nothing is to be read")

    async with served(tmp_path) as (_, api):
        exchange: Exchange[Any, Any] = Exchange(
            state=api.state,
            scope={},
            receive=receive,
            request_id="r",
            headers={},
            path="/v1/volumes/v/data",
            parameters={},
        )
        response = Response(status=200, stream=parts())
        async with asyncio.timeout(5):
            await application._send(exchange, response, stuck, head=False)
        assert ended.is_set()
