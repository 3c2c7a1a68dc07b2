"""`Prefer` (RFC 7240): waiting for the work, or an answer at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_api.http.preferences import apply_preferences
from remote_api.schema import NoQuery, WaitQuery
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import operation, served
from vmkernel import model
from vmkernel.control import requests


@pytest.mark.parametrize(
    ("prefer", "wait_s", "applied"),
    [
        ("wait=10", 10, "wait=10"),
        ("WAIT = 10", 10, "wait=10"),
        ('wait="10"', 10, "wait=10"),
        ("respond-async", 0, "respond-async"),
        ("respond-async, wait=10", 10, "respond-async, wait=10"),
        ("return=minimal, wait=5; strict", 5, "wait=5"),
        ("wait=7, wait=9", 7, "wait=7"),
        ("wait=99999", 300, "wait=300"),
        ("wait=-1", 0, None),
        ("wait=soon", 0, None),
        ("return=minimal", 0, None),
        ("", 0, None),
    ],
)
def test_what_is_preferred(prefer: str, wait_s: float, applied: str | None) -> None:
    headers = {b"prefer": [prefer.encode()]}
    query, answered = apply_preferences(headers, WaitQuery())
    assert (query.wait, answered.get("preference-applied")) == (wait_s, applied)


def test_the_parameter_comes_first_and_others_ignore_it() -> None:
    headers = {b"prefer": [b"wait=10"]}
    assert apply_preferences(headers, WaitQuery(wait=3)) == (WaitQuery(wait=3), {})
    assert apply_preferences(headers, NoQuery()) == (NoQuery(), {})


@on_loop
async def test_a_start_that_is_waited_for(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ActOnVm, operation())
        fake.answer(requests.GetOperation, operation(model.OperationState.SUCCEEDED))
        answer = await request(api, "POST", "/v1/vms/web/start", headers={"prefer": "wait=5"})
        assert (answer.status, answer.headers["preference-applied"]) == (200, "wait=5")
        assert [each.wait_s for each in fake.asked(requests.GetOperation)] == [5]
        answer = await request(
            api, "POST", "/v1/vms/web/start", headers={"prefer": "respond-async"}
        )
        assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
        assert int(answer.headers["retry-after"]) > 0
