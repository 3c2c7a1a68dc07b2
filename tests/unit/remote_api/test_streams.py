"""What flows: uploads, events, consoles."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from remote_api.auth import Opened, TicketBox
from remote_api.http.application import Application
from remote_api.resources import console, events
from remote_api.schema import ApiError
from tests.framework.asgi import Answer, request
from tests.framework.fake_vmkernel import FakeVmkernel, Streamed
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import JSON, NOW, image, operation, served
from vmkernel import model
from vmkernel.control import Stream, requests

DATA = b"0123456789"
UPLOAD = f"/v1/images/iso-1?datastore=main&format=iso&sha256={hashlib.sha256(DATA).hexdigest()}"
BINARY = {"content-type": "application/octet-stream", "if-none-match": "*"}


class Sink:
    """The vmkernel's side of an upload."""

    def __init__(self, fake: FakeVmkernel) -> None:
        self.taken = b""
        self.ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        fake.answer(requests.UploadImage, self._begin)
        fake.answer(requests.GetOperation, self._outcome)
        fake.answer(requests.GetImage, image())

    def _begin(self, asked: requests.UploadImage) -> Streamed:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.size = asked.spec.size_bytes
        self._task = asyncio.create_task(self._take(ours))
        return Streamed(operation(), theirs)

    async def _take(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(ours, 1 << 16):
            self.taken += data
        ours.close()
        self.ended.set()

    async def _outcome(self, _: requests.GetOperation) -> model.Operation:
        await self.ended.wait()
        if len(self.taken) == self.size:
            return operation(model.OperationState.SUCCEEDED)
        problem = model.ErrorInfo(code=model.ErrorCode.TRUNCATED, detail="Too short.")
        return operation(model.OperationState.FAILED, problem)


@on_loop
async def test_upload_flows_and_is_201_once_proven(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        sink = Sink(fake)
        parts = [DATA[:3], DATA[3:9], DATA[9:]]
        answer = await request(api, "PUT", UPLOAD, headers=BINARY, body=parts)
        assert (answer.status, sink.taken) == (201, DATA)
        assert answer.headers["location"] == "/v1/images/iso-1"


@on_loop
async def test_upload_of_a_client_that_leaves_ends_short(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        sink = Sink(fake)
        headers = {**BINARY, "content-length": "10"}
        answer = await request(api, "PUT", UPLOAD, headers=headers, body=[DATA[:4]], leave=True)
        assert answer.status == 0
        await asyncio.wait_for(sink.ended.wait(), 5)
        assert sink.taken == DATA[:4]


@on_loop
async def test_upload_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(
            requests.UploadImage,
            model.MicaError(model.ErrorCode.INSUFFICIENT_SPACE, "Datastore main is full."),
        )
        headers = {**BINARY, "content-length": "10", "expect": "100-continue"}
        answer = await request(api, "PUT", UPLOAD, headers=headers)
        assert (answer.status, answer.problem) == (409, "insufficient-space")
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (UPLOAD, {"transfer-encoding": "chunked"}, 411),
        (UPLOAD, {"content-length": "0"}, 422),
        (UPLOAD, {"content-length": str(1 << 60)}, 422),
        (UPLOAD, {"if-match": '"1"'}, 400),
        (UPLOAD[:-1], {}, 422),
        (UPLOAD.replace("iso&", "img&"), {}, 422),
        (UPLOAD + "&x=1", {}, 422),
        (UPLOAD.replace("datastore=main&", ""), {}, 422),
    ],
)
@on_loop
async def test_upload_announces_what_it_is(
    tmp_path: Path, path: str, headers: dict[str, str], status: int
) -> None:
    async with served(tmp_path) as (fake, api):
        sent = {"content-type": "application/octet-stream", **headers}
        answer = await request(api, "PUT", path, headers=sent, body=DATA)
        assert answer.status == status
        assert fake.asked(requests.UploadImage) == []


@on_loop
async def test_upload_tells_the_operations_problem(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        ours, theirs = socket.socketpair()
        problem = model.ErrorInfo(code=model.ErrorCode.DIGEST_MISMATCH, detail="Other digest.")
        fake.answer(requests.UploadImage, Streamed(operation(), theirs))
        fake.answer(requests.GetOperation, operation(model.OperationState.FAILED, problem))
        ours.close()
        answer = await request(api, "PUT", UPLOAD, headers=BINARY, body=DATA)
        assert (answer.status, answer.problem) == (422, "digest-mismatch")


@on_loop
async def test_upload_that_takes_long_to_prove_is_202(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        sink = Sink(fake)
        answer = await request(api, "PUT", UPLOAD + "&wait=0", headers=BINARY, body=DATA)
        assert (answer.status, answer.json["state"]) == (202, "running")
        await asyncio.wait_for(sink.ended.wait(), 5)


def _event(number: int) -> model.Event:
    return model.Event(
        id=f"e-{number}",
        time=NOW,
        type="vm.state",
        subject=model.Subject(kind="vm", id="web"),
        data={"state": "running"},
    )


@on_loop
async def test_events_go_on_after_the_last_id(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.events = [_event(1), _event(2)]
        answer = await request(
            api, "GET", "/v1/events", headers={"last-event-id": "e-0"}, leave_after_answer_s=0.2
        )
        assert answer.headers["content-type"] == "text/event-stream"
        assert fake.asked(requests.SubscribeEvents)[0].after == "e-0"
        *blocks, rest = answer.body.decode().split("\n\n")
        assert rest == ""
        fields = [
            [line for line in block.split("\n") if not line.startswith(":")] for block in blocks
        ]
        assert [each[:2] for each in fields] == [
            ["retry: 2000", "id: e-1"],
            ["id: e-2", "event: vm.state"],
        ]


@on_loop
async def test_no_empty_line_but_after_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    async with served(tmp_path) as (fake, api):
        answer = await request(api, "GET", "/v1/events", leave_after_answer_s=0.3)
        assert answer.body.startswith(b": mica events\n: heartbeat\n: heartbeat\n")
        assert b"\n\n" not in answer.body
        fake.events = [_event(1)]
        answer = await request(api, "GET", "/v1/events", leave_after_answer_s=0.3)
        assert answer.body.count(b"\n\n") == answer.body.count(b"data: ") == 1


@on_loop
async def test_events_end_with_the_vmkernel_and_with_the_server(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.events_end.set()
        answer = await request(api, "GET", "/v1/events")
        assert answer.whole
        fake.events_end.clear()
        api.state.closing.set()
        answer = await request(api, "GET", "/v1/events")
        assert answer.whole


@on_loop
async def test_events_need_a_token_and_an_id_that_can_be(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        answer = await request(api, "GET", "/v1/events", token="mica_no_body")
        assert answer.status == 401
        long = await request(api, "GET", "/v1/events", headers={"last-event-id": "x" * 200})
        assert long.status == 400
        refused = model.MicaError.field("after", "'x' is not the id of an event.")
        fake.answer(requests.SubscribeEvents, refused)
        other = await request(api, "GET", "/v1/events", headers={"last-event-id": "x"})
        assert (other.status, other.pointers) == (400, ["Last-Event-ID"])


def _opened(theirs: socket.socket) -> Opened:
    return Opened(
        vm="web",
        kind=model.ConsoleKind.SERIAL,
        stream=Stream(theirs.detach()),
        token="mica_op_secret",
    )


@on_loop
async def test_ticket_is_spent_once() -> None:
    box = TicketBox()
    ours, theirs = socket.socketpair()
    ticket = box.issue(_opened(theirs))
    box.spend(ticket, "web").stream.close()
    with pytest.raises(ApiError, match="spent"):
        box.spend(ticket, "web")
    ours.close()


@on_loop
async def test_ticket_is_for_one_vm_and_ends_with_its_stream() -> None:
    box = TicketBox()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ticket = box.issue(_opened(theirs))
    with pytest.raises(ApiError):
        box.spend(ticket, "other")
    assert ours.recv(1) == b""
    ours.close()


@on_loop
async def test_ticket_expires_and_closes_its_stream() -> None:
    box = TicketBox(life_s=0.05)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ticket = box.issue(_opened(theirs))
    await asyncio.sleep(0.1)
    with pytest.raises(ApiError, match="expired"):
        box.spend(ticket, "web")
    assert (ours.recv(1), len(box)) == (b"", 0)
    ours.close()


@on_loop
async def test_tickets_are_bounded(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        api.state.shares.tickets.per_user = 1
        fake.answer(
            requests.OpenConsole, lambda _: Streamed(requests.Done(), socket.socketpair()[0])
        )
        answers = [await _open(api) for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 429]
        assert "The token root has 1 unused console tickets" in answers[1].json["detail"]
        path = answers[0].json["websocket"]
        assert path.startswith("/v1/vms/web/console?ticket=")
        api.state.tickets.close()
        assert api.state.shares.tickets.taken == 0
        assert (await _open(api)).status == 201


@pytest.mark.parametrize("kind", ["serial", "vnc"])
@pytest.mark.parametrize("code", [model.ErrorCode.UNAUTHENTICATED, model.ErrorCode.UNAVAILABLE])
def test_a_ticket_of_a_token_revoked_meanwhile_opens_nothing(
    tmp_path: Path, kind: str, code: model.ErrorCode
) -> None:
    @on_loop
    async def story() -> None:
        async with served(tmp_path) as (fake, api):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(5)
            fake.answer(requests.OpenConsole, Streamed(requests.Done(), theirs))
            path = (await _open(api, kind=kind)).json["websocket"]
            fake.answer(requests.WhoAmI, model.MicaError(code, "It was revoked."))
            async with _WebSocket(api, path) as client:
                first = await client.sent.get()
                assert first["type"] == "websocket.http.response.start"
                assert first["status"] in (401, 503)
            assert ours.recv(1) == b""
            ours.close()
            assert (len(api.state.tickets), api.state.shares.tickets.taken) == (0, 0)
            assert api.state.shares.consoles.taken == 0

    story()


@on_loop
async def test_open_consoles_are_bounded(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        api.state.shares.consoles.per_user = 1
        pairs = [socket.socketpair() for _ in range(3)]
        left = iter(pairs)
        fake.answer(requests.OpenConsole, lambda _: Streamed(requests.Done(), next(left)[0]))
        paths = [(await _open(api, kind="vnc")).json["websocket"] for _ in range(3)]
        async with _WebSocket(api, paths[0]) as first:
            assert (await first.sent.get())["type"] == "websocket.accept"
            async with _WebSocket(api, paths[1]) as second:
                assert (await second.sent.get())["status"] == 429
        assert api.state.shares.consoles.taken == 0
        for _, theirs in pairs:
            theirs.close()


@on_loop
async def test_serial_console_passes_bytes_and_who_writes(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        fake.answer(requests.OpenConsole, Streamed(requests.Done(), theirs))
        path = (await _open(api, mode="takeover")).json["websocket"]
        loop = asyncio.get_running_loop()
        async with _WebSocket(api, path) as client:
            assert await client.sent.get() == {"type": "websocket.accept"}
            assert await loop.sock_recv(ours, 100) == b'\x01{"mode":"takeover"}'
            await loop.sock_sendall(ours, b'\x01{"writer":true}')
            await loop.sock_sendall(ours, b"\x00login: ")
            assert (await client.sent.get())["text"] == '{"writer":true}'
            assert (await client.sent.get())["bytes"] == b"login: "
            client.receive({"type": "websocket.receive", "bytes": b"root\r"})
            assert await loop.sock_recv(ours, 100) == b"\x00root\r"
            client.receive({"type": "websocket.receive", "text": '{"mode":"watch"}'})
            assert await loop.sock_recv(ours, 100) == b'\x01{"mode":"watch"}'
            long = b"x" * 200_000
            client.receive({"type": "websocket.receive", "bytes": long})
            taken = b""
            while len(taken) < len(long):
                taken += (await loop.sock_recv(ours, model.MAX_CONSOLE_BYTES))[1:]
            assert taken == long
            ours.close()
            assert (await client.sent.get())["code"] == 1000
        async with _WebSocket(api, path) as again:
            refused = await again.sent.get()
            assert (refused["type"], refused["status"]) == ("websocket.http.response.start", 401)


@on_loop
async def test_vnc_is_plain_and_speaks_the_subprotocol_that_novnc_offers(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fake.answer(requests.OpenConsole, Streamed(requests.Done(), theirs))
        path = (await _open(api, kind="vnc")).json["websocket"]
        loop = asyncio.get_running_loop()
        async with _WebSocket(api, path, subprotocols=["binary", "base64"]) as client:
            accepted = {"type": "websocket.accept", "subprotocol": "binary"}
            assert await client.sent.get() == accepted
            await loop.sock_sendall(ours, b"RFB 003.008\n")
            assert (await client.sent.get())["bytes"] == b"RFB 003.008\n"
            client.receive({"type": "websocket.receive", "bytes": b"RFB 003.008\n"})
            assert await loop.sock_recv(ours, 100) == b"RFB 003.008\n"
        ours.close()


@pytest.mark.parametrize("kind", ["serial", "vnc"])
def test_console_ends_with_its_token(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_RECHECK_S", 0.05)

    @on_loop
    async def story() -> None:
        async with served(tmp_path) as (fake, api):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            fake.answer(requests.OpenConsole, Streamed(requests.Done(), theirs))
            path = (await _open(api, kind=kind)).json["websocket"]
            gone = model.MicaError(model.ErrorCode.UNAVAILABLE, "It restarts.")
            async with _WebSocket(api, path) as client:
                assert (await client.sent.get())["type"] == "websocket.accept"
                fake.answer(requests.WhoAmI, gone)
                await asyncio.sleep(0.2)
                assert client.sent.empty()
                revoked = model.MicaError(model.ErrorCode.UNAUTHENTICATED, "It was revoked.")
                fake.answer(requests.WhoAmI, revoked)
                async with asyncio.timeout(5):
                    assert (await client.sent.get())["code"] == 1008
            ours.close()

    story()


@pytest.mark.parametrize("kind", ["serial", "vnc"])
def test_console_takes_no_other_text(tmp_path: Path, kind: str) -> None:
    @on_loop
    async def story() -> None:
        async with served(tmp_path) as (fake, api):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            fake.answer(requests.OpenConsole, Streamed(requests.Done(), theirs))
            path = (await _open(api, kind=kind)).json["websocket"]
            async with _WebSocket(api, path) as client:
                await client.sent.get()
                client.receive({"type": "websocket.receive", "text": "hello"})
                assert (await client.sent.get())["code"] == 1003
            ours.close()

    story()


@on_loop
async def test_screen_keyboard_and_nmi(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.TakeScreenshot, requests.Screenshot(png=b"\x89PNG"))
        fake.answer(requests.SendKeys, requests.Done())
        fake.answer(requests.InjectNmi, requests.Done())
        shot = await request(api, "GET", "/v1/vms/web/screenshot")
        assert (shot.status, shot.body) == (200, b"\x89PNG")
        assert shot.headers["content-type"] == "image/png"
        body = b'{"keys": ["ctrl-c"], "text": "ls"}'
        keys = await request(api, "POST", "/v1/vms/web/keys", headers=JSON, body=body)
        assert keys.status == 204
        assert fake.asked(requests.SendKeys) == [
            requests.SendKeys(id="web", keys=("ctrl-c",), text="ls")
        ]
        assert (await request(api, "POST", "/v1/vms/web/nmi")).status == 204
        long = json.dumps({"text": "x" * 300}).encode()
        refused = await request(api, "POST", "/v1/vms/web/keys", headers=JSON, body=long)
        assert (refused.status, refused.problem) == (422, "invalid")
        for method, path in (("GET", "screenshot"), ("POST", "nmi")):
            answer = await request(api, method, f"/v1/vms/web/{path}", token="mica_eye_secret")
            assert answer.status == 403


@on_loop
async def test_console_path_without_upgrade(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", "/v1/vms/web/console?ticket=x", token=None)
        assert (answer.status, answer.problem) == (426, "upgrade-required")


async def _open(api: Application, *, kind: str = "serial", mode: str = "write") -> Answer:
    body = json.dumps({"kind": kind, "mode": mode}).encode()
    return await request(api, "POST", "/v1/vms/web/console", headers=JSON, body=body)


class _WebSocket:
    """The server's side of one WebSocket, by hand."""

    def __init__(self, api: Application, path: str, *, subprotocols: Sequence[str] = ()) -> None:
        self._subprotocols = list(subprotocols)
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._api = api
        self._path, _, query = path.partition("?")
        self._query = query.encode()

    def receive(self, message: dict[str, Any]) -> None:
        """What the client sends."""
        self._received.put_nowait(message)

    async def __aenter__(self) -> _WebSocket:
        scope = {
            "type": "websocket",
            "path": self._path,
            "query_string": self._query,
            "headers": [],
            "subprotocols": self._subprotocols,
        }
        self.receive({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._api(scope, self._received.get, self.sent.put))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.receive({"type": "websocket.disconnect", "code": 1005})
        await asyncio.wait_for(self._task, 5)
