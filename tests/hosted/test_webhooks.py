"""Webhooks over HTTPS, to a real receiver by the confined worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica
from tests.framework.webhook_receiver import SECRET, Receiver, receiver, verify
from vmkernel.model import (
    Role,
    TokenSpec,
    VmSpec,
    Webhook,
    WebhookFilter,
    WebhookSpec,
    WebhookState,
)


@pytest.fixture
def web() -> Iterator[Receiver]:
    """A receiver on loopback; the tests' host may send there."""
    with receiver() as made:
        yield made


@pytest.fixture(autouse=True)
def _tidy(mica: Mica) -> Iterator[None]:
    yield
    for webhook in list(mica.webhooks()):
        mica.delete_webhook(webhook.id)


def _spec(web: Receiver, *types: str, **more: object) -> WebhookSpec:
    wanted = WebhookFilter(types=types or ("token.*",))
    return WebhookSpec(url=web.url, secret=SECRET, filter=wanted, **more)  # type: ignore[arg-type]


def _until(mica: Mica, name: str, reached: Callable[[Webhook], bool]) -> Webhook:
    end = time.monotonic() + 30
    while not reached(webhook := mica.webhook(name)):
        assert time.monotonic() < end, webhook
        time.sleep(0.1)
    return webhook


def _token(mica: Mica) -> None:
    mica.create_token("brief", TokenSpec(role=Role.VIEWER))
    mica.delete_token("brief")


def test_events_are_sent_signed_and_filtered(mica: Mica, web: Receiver) -> None:
    mica.create_webhook("hook", _spec(web, "vm.*"))
    _token(mica)
    mica.create_vm("hooked", VmSpec(datastore="main", memory_bytes=32 << 20))
    mica.delete_vm("hooked")
    first, second = web.wait_for(2)
    for received in (first, second):
        verify(received)
    assert (first.event["type"], first.event["subject"]["id"]) == ("vm.created", "hooked")
    assert first.event["object"]["spec"]["datastore"] == "main"
    assert second.event["type"] == "vm.deleted"
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    webhook = _until(mica, "hook", lambda each: each.status.delivered == 2)
    assert (webhook.status.state, webhook.status.waiting) == (WebhookState.OK, 0)
    assert webhook.status.last_attempt is not None
    assert webhook.status.last_attempt.status == 200
    time.sleep(0.3)
    assert len(web.received) == 2


def test_secret_is_never_answered_and_stays_when_sent_back(mica: Mica, web: Receiver) -> None:
    made = mica.create_webhook("hook", _spec(web))
    assert made.spec.secret == "***"
    with checked_client(mica) as http:
        for path in ("/v1/webhooks", "/v1/webhooks/hook"):
            assert SECRET not in http.get(path).text
        etag = http.get("/v1/webhooks/hook").headers["etag"]
        body = {"spec": {"description": "mine", "secret": "***"}}
        merge = {"content-type": "application/merge-patch+json"}
        changed = http.patch("/v1/webhooks/hook", json=body, headers={**merge, "if-match": etag})
        assert (changed.status_code, changed.json()["revision"]) == (200, 2)
        stale = http.patch(
            "/v1/webhooks/hook",
            json={"spec": {"description": "x"}},
            headers={**merge, "if-match": etag},
        )
        assert stale.status_code == 412
    attempt = mica.ping_webhook("hook")
    assert (attempt.delivered, attempt.status) == (True, 200)
    verify(web.received[-1])
    assert web.received[-1].event["type"] == "webhook.ping"


def test_what_is_refused(mica: Mica, web: Receiver) -> None:
    spec = _spec(web)
    for wrong, pointer in (
        ({"url": "http://user:pw@192.0.2.1/"}, "/spec/url"),
        ({"url": "ftp://192.0.2.1/"}, "/spec/url"),
        ({"secret": "whsec_" + "A" * 33}, "/spec/secret"),
        ({"secret": "***"}, "/spec/secret"),
        ({"filter": {"types": ["vm.exploded"]}}, "/spec/filter/types"),
        ({"filter": {"subjects": ["machine"]}}, "/spec/filter/subjects"),
    ):
        with checked_client(mica) as http:
            body = {"spec": {"url": spec.url, "secret": SECRET, **wrong}}
            answer = http.put("/v1/webhooks/hook", json=body, headers={"if-none-match": "*"})
            assert answer.status_code == 422, wrong
            assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    mica.create_webhook("hook", spec)
    with pytest.raises(RefusedError) as caught:
        mica.create_webhook("hook", spec)
    assert caught.value.problem.status == 412
    issued = mica.create_token("weak", TokenSpec(role=Role.OPERATOR))
    with Mica(
        mica.transport.address, token=issued.secret, fingerprint=mica.transport.fingerprint
    ) as weak:
        with pytest.raises(RefusedError) as caught:
            list(weak.webhooks())
        assert caught.value.problem.status == 403
    mica.delete_token("weak")


def test_bad_receivers_are_told_of_and_delay_no_other(mica: Mica) -> None:
    with receiver() as hanging, receiver() as refusing, receiver() as gone, receiver() as good:
        hanging.behaviour, refusing.behaviour, gone.behaviour = "hang", "500", "410"
        for name, web in {"hangs": hanging, "refuses": refusing, "gone": gone}.items():
            mica.create_webhook(name, _spec(web))
        mica.create_webhook("good", _spec(good))
        after = mica.event_position()
        begun = time.monotonic()
        _token(mica)
        good.wait_for(2)
        assert time.monotonic() - begun < 12, "the one that hangs has 15 s"
        refuses = _until(mica, "refuses", lambda each: each.status.consecutive_failures > 0)
        assert refuses.status.state is WebhookState.FAILING
        assert refuses.status.last_attempt is not None
        assert refuses.status.last_attempt.error == "The receiver answered 500."
        assert refuses.status.next_attempt_at is not None
        ended = _until(mica, "gone", lambda each: not each.spec.enabled)
        assert ended.status.state is WebhookState.DISABLED
        assert "410" in (ended.status.disabled_reason or "")
        hangs = _until(mica, "hangs", lambda each: each.status.consecutive_failures > 0)
        assert hangs.status.last_attempt is not None
        assert "did not answer within 15 s" in (hangs.status.last_attempt.error or "")
        told = set()
        for event in mica.events(after, types=["webhook.*"], reconnect=False):
            told.add((event.type, event.subject.id))
            if len(told) == 4:
                break
        assert told == {
            *(("webhook.failing", name) for name in ("hangs", "refuses", "gone")),
            ("webhook.disabled", "gone"),
        }
        refusing.behaviour = "200"
        mica.patch_webhook("gone", {"enabled": True, "url": good.url})
        assert mica.webhook("gone").status.disabled_reason is None
        mica.patch_webhook("refuses", {"description": "mended"})  # which tries it at once
        _until(mica, "refuses", lambda each: each.status.state is WebhookState.OK)


def test_deliveries_outlast_a_killed_vmkernel(host: HostedMica, mica: Mica, web: Receiver) -> None:
    web.behaviour = "reset"
    mica.create_webhook("hook", _spec(web, "token.created"))
    mica.create_token("brief", TokenSpec(role=Role.VIEWER))
    web.wait_for(1)
    os.kill(host.pid("vmkernel"), signal.SIGKILL)
    before = len(web.received)
    web.behaviour = "200"
    received = web.wait_for(before + 1)[-1]
    verify(received)
    assert (received.event["type"], received.event["subject"]["id"]) == ("token.created", "brief")
    ids = {each.headers["webhook-id"] for each in web.received}
    assert len(ids) == 1, "the same in all attempts"
    end = time.monotonic() + 20
    while True:
        try:
            if mica.webhook("hook").status.waiting == 0:
                break
        except RefusedError:
            assert time.monotonic() < end
        time.sleep(0.2)
    mica.delete_token("brief")


def test_deleted_webhook_leaves_nothing(host: HostedMica, mica: Mica, web: Receiver) -> None:
    web.behaviour = "500"
    mica.create_webhook("hook", _spec(web))
    _token(mica)
    web.wait_for(1)
    (folder,) = Path(host.folder).rglob("webhooks/hook")
    assert any(folder.iterdir())
    mica.delete_webhook("hook")
    assert not folder.exists()
