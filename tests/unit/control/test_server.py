"""The control socket: who gets in, what comes back, what happens when a peer goes away."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.framework.pages import items_of
from tests.unit.state.ram_medium import RamMedium
from vmkernel.auth import AccessService, Caller, ClaimCode
from vmkernel.control import ControlClient, requests, wire
from vmkernel.control.dispatch import Dispatcher, Streamed
from vmkernel.control.handlers import access, operations
from vmkernel.control.requests import webhooks
from vmkernel.control.server import ControlServer, bind_socket
from vmkernel.control.wire import Connection, Failure, Success, WireError
from vmkernel.events import EventBus
from vmkernel.model import (
    ConsoleKind,
    ErrorCode,
    Event,
    HostStatus,
    MicaError,
    Operation,
    Role,
    StoredData,
    Subject,
    Token,
    TokenSpec,
    Vm,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.state import StateLog, StateStore
from vmkernel.state.config import TlsMaterial

CODE = "AAAAABBBBB"
HOST = Subject(kind="host", id="host")
_NUMBERS = count()


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _new_identity(hostname: str, uuid: str) -> TlsMaterial:
    certificate = base64.b64encode(f"{hostname} {uuid} {next(_NUMBERS)}".encode()).decode()
    return TlsMaterial(
        certificate_pem=f"-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n",
        private_key_pem="key",
    )


class World:
    """A server on a socket, with what it needs and a client."""

    def __init__(self, path: Path, allowed_uids: set[int], call_timeout_s: float) -> None:
        self.path = path
        self.medium = RamMedium(slots=4, slot_bytes=1 << 16)
        self.store = store = StateStore(StateLog(self.medium))
        store.open()
        self.bus = EventBus()
        self.operations = OperationRegistry(self.bus)
        self.access = AccessService(store, self.bus, claim_code=ClaimCode(CODE))
        self.dispatcher = Dispatcher()
        access.register(self.dispatcher, self.access, store, self.bus, _new_identity)
        operations.register(self.dispatcher, self.operations)
        self.server = ControlServer(
            self.dispatcher,
            self.access,
            self.bus,
            allowed_uids=allowed_uids,
            call_timeout_s=call_timeout_s,
            recheck_s=0.1,
        )
        self.client = ControlClient(path)
        self.admin = ""

    async def connect(self) -> Connection:
        """A bare connection, to misbehave on."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(self.path))
        return Connection(sock)

    async def token(self, token_id: str, role: Role) -> str:
        """A token of a role."""
        issued = await self.access.create(token_id, TokenSpec(role=role), actor="test")
        return issued.secret


@asynccontextmanager
async def _world(
    tmp_path: Path, allowed_uids: set[int] | None = None, call_timeout_s: float = 5.0
) -> AsyncIterator[World]:
    allowed = {os.getuid()} if allowed_uids is None else allowed_uids
    world = World(tmp_path / "control.sock", allowed, call_timeout_s)
    with bind_socket(world.path) as listener:
        serving = asyncio.create_task(world.server.serve(listener))
        world.admin = (await world.access.claim(CODE, "admin")).secret
        try:
            yield world
        finally:
            world.client.close()
            await world.operations.close()
            world.bus.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _run(
    tmp_path: Path,
    scenario: Callable[[World], Awaitable[None]],
    *,
    allowed_uids: set[int] | None = None,
    call_timeout_s: float = 5.0,
) -> None:
    async def main() -> None:
        async with _world(tmp_path, allowed_uids, call_timeout_s) as world:
            async with asyncio.timeout(20):
                await scenario(world)

    asyncio.run(main())


async def _refusal(call: Awaitable[Any]) -> ErrorCode:
    with pytest.raises(MicaError) as caught:
        await call
    return caught.value.problem.code


def test_requests_are_answered(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert world.path.stat().st_mode & 0o777 == 0o600
        page = await world.client.call(requests.ListTokens(), token=world.admin)
        assert [token.id for token in items_of(page, Token)] == ["admin"]
        me = await world.client.call(requests.WhoAmI(), token=world.admin)
        assert me.id == "admin"

    _run(tmp_path, scenario)


def test_another_users_process_gets_no_answer_at_all(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with world.bus.subscribe() as subscription:
            code = await _refusal(world.client.call(requests.WhoAmI(), token=world.admin))
            assert code is ErrorCode.UNAVAILABLE
            event = await subscription.next()
            assert event is not None
            assert event.type == "audit.denied"

    _run(tmp_path, scenario, allowed_uids={os.getuid() + 1})


@pytest.mark.parametrize("token", [None, "", "nonsense", "mica_admin_wrong", "mica_nobody_x"])
def test_without_a_good_token_nothing_is_told(tmp_path: Path, token: str | None) -> None:
    async def scenario(world: World) -> None:
        with world.bus.subscribe() as subscription:
            code = await _refusal(
                world.client.call(requests.ListOperations(), token=token, origin="192.0.2.9")
            )
            assert code is ErrorCode.UNAUTHENTICATED
            event = await subscription.next()
            assert event is not None
            assert (event.type, event.actor) == ("audit.denied", "anonymous")
            assert event.data["request"] == "operation.list"
            assert event.data["origin"] == "192.0.2.9"
            assert "wrong" not in repr(event)

    _run(tmp_path, scenario)


def test_roles_are_enforced_and_refusals_audited(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        viewer = await world.token("viewer", Role.VIEWER)
        with world.bus.subscribe() as subscription:
            code = await _refusal(world.client.call(requests.DeleteToken(id="admin"), token=viewer))
            assert code is ErrorCode.FORBIDDEN
            event = await subscription.next()
            assert event is not None
            assert (event.type, event.actor) == ("audit.denied", "viewer")

    _run(tmp_path, scenario)


def test_wrong_claim_codes_are_audited(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await _refusal(world.client.call(requests.Claim(code="x"))) is ErrorCode.CONFLICT

    _run(tmp_path, scenario)


def test_a_stream_of_events_ends_with_its_token(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        watcher = await world.token("watcher", Role.VIEWER)
        async with world.client.events(requests.SubscribeEvents(), token=watcher) as events:
            world.bus.publish("vm.state", Subject(kind="vm", id="web"))
            assert (await anext(events)).type == "vm.state"
            await world.access.delete("watcher", actor="admin")
            assert [event async for event in events] == []
        short = TokenSpec(
            role=Role.VIEWER,
            expires_at=(datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )
        brief = (await world.access.create("brief", short, actor="test")).secret
        async with world.client.events(requests.SubscribeEvents(), token=brief) as events:
            assert [event async for event in events] == []

    _run(tmp_path, scenario)


def test_handing_out_a_guests_data_is_audited(tmp_path: Path) -> None:
    async def read(request: requests.ReadVolume, _: Caller) -> Streamed:
        ours, theirs = socket.socketpair()
        theirs.close()
        return Streamed(StoredData(size_bytes=1, etag="e", format=None), ours)

    async def scenario(world: World) -> None:
        world.dispatcher.register(requests.ReadVolume, read)
        with world.bus.subscribe() as subscription:
            for _ in range(3):
                _, stream = await world.client.open(
                    requests.ReadVolume(id="v", offset=0, length=1),
                    token=world.admin,
                    origin="192.0.2.7",
                )
                stream.close()
            events: list[Event] = []
            while (event := subscription.poll()) is not None:
                events.append(event)
        (audit,) = events
        assert (audit.type, audit.actor) == ("audit.read", "admin")
        assert audit.subject == Subject(kind="volume", id="v")
        assert audit.data == {
            "request": "storage.read-volume",
            "origin": "192.0.2.7",
            "repeated": 0,
        }

    _run(tmp_path, scenario)


def test_changes_are_audited_and_reads_are_not(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with world.bus.subscribe() as subscription:
            await world.client.call(requests.ListTokens(), token=world.admin)
            await world.client.call(
                requests.CreateToken(id="x", spec=TokenSpec(role=Role.VIEWER)),
                token=world.admin,
                origin="192.0.2.7",
            )
            events: list[Event] = []
            while (event := subscription.poll()) is not None:
                events.append(event)
        assert [event.type for event in events] == ["token.created", "audit.changed"]
        audit = events[1]
        assert (audit.actor, audit.subject) == ("admin", Subject(kind="token", id="x"))
        assert audit.data == {"request": "access.create-token", "origin": "192.0.2.7"}

    _run(tmp_path, scenario)


def test_the_key_is_replaced_durably_before_the_answer(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with world.bus.subscribe() as subscription:
            first = await world.client.call(requests.RotateCertificate(), token=world.admin)
            kept = world.store.config.tls
            assert kept is not None
            assert first.certificate_pem == kept.certificate_pem
            assert (await world.client.call(requests.GetTlsIdentity())).private_key_pem == b"key"
            event = await subscription.next()
            assert event is not None
            assert (event.type, event.actor) == ("host.certificate-rotated", "admin")
            assert event.data["fingerprint_sha256"] == first.fingerprint_sha256
        world.medium.failing = True
        refused = world.client.call(requests.RotateCertificate(), token=world.admin)
        assert await _refusal(refused) is ErrorCode.UNAVAILABLE
        assert world.store.config.tls is kept
        viewer = world.client.call(requests.RotateCertificate(), token="mica_x_y")
        assert await _refusal(viewer) is ErrorCode.UNAUTHENTICATED

    _run(tmp_path, scenario)


def test_what_has_no_handler_is_unsupported(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        code = await _refusal(world.client.call(requests.ListVms(), token=world.admin))
        assert code is ErrorCode.UNSUPPORTED

    _run(tmp_path, scenario)


def test_an_unexpected_failure_is_an_incident(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        async def broken(_: requests.GetHost, __: Caller) -> HostStatus:
            raise ZeroDivisionError("inner detail")

        world.dispatcher.register(requests.GetHost, broken)
        with pytest.raises(MicaError) as caught:
            await world.client.call(requests.GetHost(), token=world.admin)
        assert caught.value.problem.code is ErrorCode.INTERNAL
        assert "inner detail" not in caught.value.problem.detail
        assert "inner detail" in caplog.text

    _run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (b"\xc1", None),
        (msgspec.msgpack.encode({"request": {"op": "nonsense"}}), "/op"),
        (msgspec.msgpack.encode({"request": {"op": "vm.get", "id": "UPPER"}}), "/id"),
        (
            msgspec.msgpack.encode(
                {
                    "request": {
                        "op": "vm.create",
                        "id": "x",
                        "spec": {"datastore": "d", "disks": [{"volume": 1}]},
                    }
                }
            ),
            "/spec/disks/0/volume",
        ),
    ],
)
def test_a_request_of_the_wrong_shape_names_the_field(
    tmp_path: Path, payload: bytes, pointer: str | None
) -> None:
    async def scenario(world: World) -> None:
        connection = await world.connect()
        await connection.send(msgspec.Raw(payload))
        frame = await connection.receive()
        assert frame is not None
        reply = msgspec.msgpack.decode(frame, type=Success | Failure)
        assert isinstance(reply, Failure)
        assert reply.problem.code is ErrorCode.INVALID
        if pointer is not None:
            assert [field.pointer for field in reply.problem.fields] == [pointer]
        connection.close()

    _run(tmp_path, scenario)


def test_a_frame_that_is_too_long_ends_the_connection(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, str(world.path))
            await loop.sock_sendall(sock, b"\xff\xff\xff\xff")
            assert await loop.sock_recv(sock, 100) == b""

    _run(tmp_path, scenario)


def test_a_peer_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        connection = await world.connect()
        frame = await connection.receive()
        assert frame is not None
        reply = msgspec.msgpack.decode(frame, type=Success | Failure)
        assert isinstance(reply, Failure)
        assert reply.problem.code is ErrorCode.TIMED_OUT
        connection.close()

    _run(tmp_path, scenario, call_timeout_s=0.05)


def test_a_reply_can_bring_a_stream(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        ours, theirs = socket.socketpair()

        async def console(_: requests.OpenConsole, __: Caller) -> Streamed:
            return Streamed(requests.Done(), theirs)

        world.dispatcher.register(requests.OpenConsole, console)
        request = requests.OpenConsole(id="v", kind=ConsoleKind.SERIAL)
        _, stream = await world.client.open(request, token=world.admin)
        assert theirs.fileno() == -1
        ours.sendall(b"hello")
        assert await asyncio.get_running_loop().sock_recv(stream.socket, 10) == b"hello"
        stream.close()
        assert ours.recv(1) == b""
        ours.close()

    _run(tmp_path, scenario)


class Hanging:
    """A handler that takes a moment and tells how it ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, _: object, __: Caller) -> Vm:
        """Handle any request."""
        self.begun.set()
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise
        self.ended.set_result("done")
        raise MicaError(ErrorCode.CONFLICT, "The outcome does not matter.")


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        (requests.GetVm(id="v"), "cancelled"),
        (requests.DeleteVm(id="v"), "done"),
    ],
)
def test_a_peer_that_goes_away_ends_reads_and_never_changes(
    tmp_path: Path, request_: requests.Request[Any], end: str
) -> None:
    async def scenario(world: World) -> None:
        handler = Hanging()
        world.dispatcher.register(type(request_), handler)
        call = asyncio.create_task(world.client.call(request_, token=world.admin))
        await handler.begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await handler.ended == end

    _run(tmp_path, scenario)


def test_descriptors_that_nobody_asked_for_reach_nobody(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        before = _descriptors()
        peers = []
        for _ in range(20):
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            peer.connect(str(world.path))
            for octet in b"\x00\x00\x10\x00":
                socket.send_fds(peer, [bytes([octet])], [peer.fileno()] * 200)
            peers.append(peer)
        await asyncio.sleep(0.2)
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"
        assert _descriptors() - before <= 2 * len(peers)
        for peer in peers:
            peer.close()

    _run(tmp_path, scenario)


def test_long_calls_are_held_a_few_at_a_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        length = wire.MAX_CALL_BYTES
        waiting = []
        for _ in range(40):
            peer = await world.connect()
            await asyncio.get_running_loop().sock_sendall(
                peer._sock, length.to_bytes(4, "big") + b"x" * (1 << 15)
            )
            waiting.append(peer)
        await asyncio.sleep(0.1)
        assert world.server._long_calls.locked()
        assert (await world.client.call(requests.WhoAmI(), token=world.admin)).id == "admin"
        over = await world.connect()
        await asyncio.get_running_loop().sock_sendall(over._sock, (length + 1).to_bytes(4, "big"))
        assert await over.receive() is None
        for peer in (*waiting, over):
            peer.close()

    _run(tmp_path, scenario)


def test_events_are_followed_and_resumed(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        seen: list[Event] = []
        async with world.client.events(requests.SubscribeEvents(), token=world.admin) as events:
            for number in range(3):
                world.bus.publish("test", HOST, message=str(number))
            async for event in events:
                seen.append(event)
                if len(seen) == 3:
                    break
        assert [event.message for event in seen] == ["0", "1", "2"]
        request = requests.SubscribeEvents(after=seen[0].id)
        async with world.client.events(request, token=world.admin) as events:
            again = [await anext(events), await anext(events)]
        assert again == seen[1:]

    _run(tmp_path, scenario)


def test_a_bad_subscription_is_refused(tmp_path: Path) -> None:
    async def subscribe(world: World) -> None:
        request = requests.SubscribeEvents(after="nonsense")
        async with world.client.events(request, token=world.admin):
            pass

    async def scenario(world: World) -> None:
        assert await _refusal(subscribe(world)) is ErrorCode.INVALID

    _run(tmp_path, scenario)


def test_waiting_for_an_operation(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        go = asyncio.Event()

        async def work(_: OperationContext) -> None:
            await go.wait()

        begun = world.operations.begin("k", HOST, work, actor="admin")
        asyncio.get_running_loop().call_later(0.05, go.set)
        ended: Operation = await world.client.call(
            requests.GetOperation(id=begun.id, wait_s=10), token=world.admin
        )
        assert ended.state.finished
        page = await world.client.call(requests.ListOperations(), token=world.admin)
        assert items_of(page, Operation) == (ended,)

    _run(tmp_path, scenario)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_socket(path).close()
    with bind_socket(path), pytest.raises(OSError, match="another vmkernel"):
        bind_socket(path)


def test_a_client_without_a_server_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        client = ControlClient(tmp_path / "nothing")
        assert await _refusal(client.call(requests.GetApiInfo())) is ErrorCode.UNAVAILABLE

    asyncio.run(scenario())


def test_requests_for_operators_that_only_read_are_known() -> None:
    for kind in requests.REQUESTS:
        if kind.ROLE in (Role.OPERATOR, Role.ADMIN):
            reads = kind in (
                requests.GetBackupVm,
                requests.GetImageMap,
                requests.GetToken,
                requests.GetUpload,
                requests.GetVolumeData,
                requests.GetVolumeMap,
                webhooks.GetWebhook,
                webhooks.ListWebhooks,
                requests.ListAudit,
                requests.ListExtents,
                requests.ListTokens,
                requests.ListUploads,
                requests.ReadBackup,
                requests.ReadImage,
                requests.ReadVolume,
                requests.TakeScreenshot,
            )
            assert kind.READ_ONLY is reads, kind


def test_a_connection_counts_its_descriptors() -> None:
    async def scenario() -> None:
        left, right = socket.socketpair()
        a, b = Connection(left), Connection(right)
        await a.send({"x": 1})
        assert await b.receive() is not None
        with pytest.raises(WireError):
            b.take_fd()
        a.close()
        assert await b.receive() is None
        b.close()

    asyncio.run(scenario())
