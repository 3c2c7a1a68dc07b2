"""The worker that sends webhooks, against receivers of every kind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.framework.webhook_receiver import Receiver, receiver
from vmkernel.workers.deliver import deliver


@pytest.fixture
def web() -> Iterator[Receiver]:
    """A receiver."""
    with receiver() as made:
        yield made


def _sent(url: str, count: int = 1, **more: Any) -> list[dict[str, Any]]:
    messages = [{"headers": {"webhook-id": f"m{n}"}, "body": '{"é": 1}'} for n in range(count)]
    given = {"allow_loopback": True, "answer_s": 1.0, **more}
    return deliver(url, messages, **given)


def test_what_is_taken(web: Receiver, capfd: pytest.CaptureFixture[str]) -> None:
    assert _sent(web.url, 3) == [{"status": 200}] * 3
    assert [each.headers["webhook-id"] for each in web.received] == ["m0", "m1", "m2"]
    assert web.received[0].line == "POST /hook?a=b HTTP/1.1"
    assert web.received[0].body == '{"é": 1}'.encode()
    assert capfd.readouterr().out.splitlines()[-1] == '{"done": 3, "total": 3}'


@pytest.mark.parametrize(
    ("behaviour", "receipt"),
    [
        ("204", {"status": 204}),
        ("500", {"status": 500}),
        ("410", {"status": 410}),
        ("302", {"status": 302}),
        ("retry 7", {"status": 503, "retry_after_s": 7}),
        ("retry soon", {"status": 503}),
        ("retry 99999999999", {"status": 503}),
    ],
)
def test_answers(web: Receiver, behaviour: str, receipt: dict[str, int]) -> None:
    web.behaviour = behaviour
    assert _sent(web.url)[0] == receipt
    assert len(web.received) == 1, "redirects are not followed"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("hang", "did not answer within 1 s"),
        ("drip", "did not answer within 1 s"),
        ("reset", "can't be reached: Connection reset"),
        ("close", "closed the connection"),
        ("flood", "can't be reached"),
    ],
)
def test_receivers_that_are_broken_or_mean(web: Receiver, behaviour: str, words: str) -> None:
    web.behaviour = behaviour
    begun = time.monotonic()
    (receipt,) = _sent(web.url, 3)
    assert words in receipt["error"]
    assert time.monotonic() - begun < 5


def test_nothing_more_is_begun_once_the_time_is_over(web: Receiver) -> None:
    assert _sent(web.url, 3, budget_s=0.0) == [{"status": 200}]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/", "this host itself"),
        ("http://[::1]:1/", "this host itself"),
        ("http://169.254.169.254/latest", "this host itself"),
        ("http://[::ffff:127.0.0.1]/", "this host itself"),
        ("http://0.0.0.0/", "this host itself"),
        ("ftp://192.0.2.1/", "only http and https"),
        ("http://user:pw@192.0.2.1/", "credentials"),
        ("http://no-such-name.invalid/", "can't be resolved"),
    ],
)
def test_what_is_not_connected_to(url: str, words: str) -> None:
    (receipt,) = _sent(url, allow_loopback=False)
    assert words in receipt["error"]
