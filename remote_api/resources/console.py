"""Consoles: a ticket by HTTP, then a WebSocket that carries the console's bytes both ways.

Binary messages are those bytes. A serial line has text messages besides: notices to the client
(`ConsoleNotice`: whether it writes, or who does), and what the client asks for (`ConsoleAsk`). If
its ticket was requested as `raw`, it has none: everything that the client sends is typed. VNC has
none, so that noVNC, which offers the subprotocol `binary` or none, gets plain RFB.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from remote_api.auth.tickets import TICKET_LIFE_S, Opened
from remote_api.http.exchange import (
    ApiState,
    Exchange,
    Receive,
    Response,
    Send,
    json_response,
)
from remote_api.http.problems import api_error
from remote_api.http.routing import AnyRoute, BodyKind, NoBody, Reply, Route
from remote_api.http.upgrade import Upgrade, refuse
from remote_api.schema import (
    ApiError,
    ConsoleBody,
    ConsoleFraming,
    ConsoleQuery,
    ConsoleTicket,
    HttpCode,
    KeysBody,
    NoQuery,
)
from vmkernel.control.requests import InjectNmi, OpenConsole, SendKeys, TakeScreenshot, WhoAmI
from vmkernel.model import (
    CONTROL,
    DATA,
    MAX_CONSOLE_BYTES,
    ConsoleAsk,
    ConsoleKind,
    ConsoleMode,
    ErrorCode,
    MicaError,
    Role,
)

__all__ = ["ROUTES"]

logger = logging.getLogger("mica.api")

_PART_BYTES = MAX_CONSOLE_BYTES - 1
_SUBPROTOCOL = "binary"
_NORMAL, _GOING_AWAY, _INVALID_DATA, _FORBIDDEN = 1000, 1001, 1003, 1008
_RECHECK_S = 15.0


async def open_console(exchange: Exchange[NoQuery, ConsoleBody]) -> Response:
    """Open a VM's console and give a ticket for it."""
    kind = exchange.body.kind
    mode = exchange.body.mode
    raw = exchange.body.framing is ConsoleFraming.RAW
    exchange.state.shares.tickets.check(exchange.user, exchange.origin)
    _, stream = await exchange.open(OpenConsole(id=exchange.id, kind=kind))
    try:
        release = exchange.state.shares.tickets.take(exchange.user, exchange.origin)
    except ApiError:
        stream.close()
        raise
    ticket = exchange.state.tickets.issue(
        Opened(
            vm=exchange.id,
            kind=kind,
            mode=mode,
            raw=raw,
            stream=stream,
            token=exchange.token,
            release=release,
        )
    )
    expires = datetime.now(UTC) + timedelta(seconds=TICKET_LIFE_S)
    return json_response(
        ConsoleTicket(
            ticket=ticket,
            websocket=f"{exchange.path}?ticket={ticket}",
            expires_at=expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
        status=201,
    )


async def take_screenshot(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """A picture of what the display shows."""
    shot = await exchange.call(TakeScreenshot(id=exchange.id))
    return Response(status=200, body=shot.png, media_type="image/png")


async def send_keys(exchange: Exchange[NoQuery, KeysBody]) -> Response:
    body = exchange.body
    await exchange.call(SendKeys(id=exchange.id, keys=body.keys, text=body.text))
    return Response(status=204)


async def inject_nmi(exchange: Exchange[NoQuery, NoBody]) -> Response:
    await exchange.call(InjectNmi(id=exchange.id))
    return Response(status=204)


async def explain_websocket(_exchange: Exchange[ConsoleQuery, NoBody]) -> Response:
    """The console's path without an upgrade to WebSocket."""
    raise ApiError(
        HttpCode.UPGRADE_REQUIRED,
        "Open this path by WebSocket.",
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


async def serve_console(upgrade: Upgrade[ConsoleQuery]) -> None:
    """Serve a WebSocket: spend its ticket and pass bytes until either side ends."""
    held = ExitStack()
    try:
        console = upgrade.state.tickets.spend(upgrade.query.ticket, upgrade.parameters["id"])
        held.callback(console.stream.close)
        await _admit(upgrade, console, held)
    except ApiError as error:
        held.close()
        await refuse(error, upgrade.request_id, upgrade.send)
        return
    try:
        offered = upgrade.scope.get("subprotocols", ())
        chosen = {"subprotocol": _SUBPROTOCOL} if _SUBPROTOCOL in offered else {}
        await upgrade.send({"type": "websocket.accept", **chosen})
        lanes = _serial if console.kind is ConsoleKind.SERIAL else _plain
        lost = _token_lost(upgrade.state, console, upgrade.origin)
        to_client, from_client = await lanes(console, upgrade.receive, upgrade.send)
        code = await _relay(upgrade.state, lost, to_client, from_client)
        await upgrade.send({"type": "websocket.close", "code": code})
    except OSError:
        logger.debug("console %s: the client went away", upgrade.request_id)
    finally:
        held.close()


async def _admit(upgrade: Upgrade[ConsoleQuery], console: Opened, held: ExitStack) -> None:
    """Take the console's place, if its token is still good. Raises ApiError (401, 429, 503)."""
    state, origin = upgrade.state, upgrade.origin
    try:
        await state.control.call(WhoAmI(), token=console.token, origin=origin, timeout_s=10.0)
    except MicaError as error:
        raise api_error(error.problem) from error
    held.callback(state.shares.consoles.take(console.user, origin))
    if upgrade.peer is not None:
        upgrade.peer.proven(console.user)


Lane = Coroutine[Any, Any, None]


async def _token_lost(state: ApiState, console: Opened, origin: str) -> None:
    """Return once the token that asked for the console was revoked or has expired."""
    while True:
        await asyncio.sleep(_RECHECK_S)
        try:
            await state.control.call(WhoAmI(), token=console.token, origin=origin, timeout_s=10.0)
        except MicaError as error:
            if error.problem.code is ErrorCode.UNAUTHENTICATED:
                return


async def _relay(state: ApiState, token_lost: Lane, to_client: Lane, from_client: Lane) -> int:
    """Pass bytes both ways; the close code for the client."""
    tasks: dict[asyncio.Task[Any], int] = {
        asyncio.create_task(token_lost): _FORBIDDEN,
        asyncio.create_task(to_client): _NORMAL,
        asyncio.create_task(from_client): _INVALID_DATA,
        asyncio.create_task(state.closing.wait()): _GOING_AWAY,
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if (error := task.exception()) is not None and not isinstance(error, OSError):
                raise error
        return min(tasks[task] for task in done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _plain(console: Opened, receive: Receive, send: Send) -> tuple[Lane, Lane]:
    """RFB without framing."""
    loop, sock = asyncio.get_running_loop(), console.stream.socket

    async def to_client() -> None:
        while data := await loop.sock_recv(sock, _PART_BYTES):
            await send({"type": "websocket.send", "bytes": data})

    async def from_client() -> None:
        while isinstance(data := await _message(receive), bytes):
            await loop.sock_sendall(sock, data)

    return to_client(), from_client()


async def _serial(console: Opened, receive: Receive, send: Send) -> tuple[Lane, Lane]:
    """The line's bytes as binary messages; text messages say who writes, unless the messages are
    raw.
    """
    loop, sock = asyncio.get_running_loop(), console.stream.socket

    async def ask(mode: ConsoleMode) -> None:
        asked = msgspec.json.encode(ConsoleAsk(mode=mode))
        await loop.sock_sendall(sock, CONTROL + asked)

    async def to_client() -> None:
        while message := await loop.sock_recv(sock, MAX_CONSOLE_BYTES):
            if message.startswith(DATA):
                await send({"type": "websocket.send", "bytes": message[1:]})
            elif not console.raw:
                await send({"type": "websocket.send", "text": message[1:].decode()})

    async def from_client() -> None:
        while True:
            data = await _message(receive)
            if isinstance(data, str) and console.raw:
                data = data.encode()
            if isinstance(data, str):
                try:
                    wish = msgspec.json.decode(data, type=ConsoleAsk)
                except msgspec.DecodeError:
                    return
                await ask(wish.mode)
                continue
            for at in range(0, len(data), _PART_BYTES):
                await loop.sock_sendall(sock, DATA + data[at : at + _PART_BYTES])

    await ask(console.mode)
    return to_client(), from_client()


async def _message(receive: Receive) -> bytes | str:
    """The client's next message. Raises ConnectionResetError once it has gone."""
    message = await receive()
    if message["type"] == "websocket.disconnect":
        raise ConnectionResetError("the client closed the console")
    data: bytes | str | None = message.get("bytes")
    return str(message.get("text")) if data is None else data


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/vms/{id}/console",
        name="openConsole",
        dry_run=False,
        summary="Open a running VM's console; the answer is a ticket for one WebSocket within 30 s",
        handler=open_console,
        role=Role.OPERATOR,
        body=ConsoleBody,
        body_kind=BodyKind.JSON,
        examples={"serial line": {"kind": "serial", "mode": "write"}},
        replies=(Reply(status=201, description="The ticket.", body=ConsoleTicket),),
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.CONFLICT,
            ErrorCode.UNSUPPORTED,
            ErrorCode.RATE_LIMITED,
        ),
    ),
    Route(
        method="GET",
        path="/v1/vms/{id}/console",
        name="attachConsole",
        summary="A console by WebSocket: binary messages carry its bytes both ways",
        details="Of a serial line, text messages are JSON: the host says who writes"
        ' (`{"writer": false, "holder": "admin at 192.0.2.9"}`), and a client asks to'
        ' (`{"mode": "takeover"}`; `write` and `watch` are the other modes). While the guest has'
        " taken no input for 10 s, what its writer types is dropped"
        ' (`{"writer": true, "stalled": true}`); its output still comes.',
        handler=explain_websocket,
        role=None,
        query=ConsoleQuery,
        replies=(Reply(status=101, description="The WebSocket is open."),),
        problems=(ErrorCode.UNAUTHENTICATED, HttpCode.UPGRADE_REQUIRED),
        websocket=serve_console,
    ),
    Route(
        method="GET",
        path="/v1/vms/{id}/screenshot",
        name="takeScreenshot",
        summary="A screenshot of a virtual machine's display",
        details="A PNG picture in the size that the guest has set.",
        handler=take_screenshot,
        role=Role.OPERATOR,
        replies=(
            Reply(status=200, description="The picture.", body=bytes, media_type="image/png"),
        ),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.UNSUPPORTED),
    ),
    Route(
        method="POST",
        path="/v1/vms/{id}/keys",
        name="sendKeys",
        dry_run=False,
        summary="Send keys and text to a virtual machine's keyboard",
        handler=send_keys,
        role=Role.OPERATOR,
        body=KeysBody,
        body_kind=BodyKind.JSON,
        examples={"a chord, then text": {"keys": ["ctrl-alt-f2"], "text": "root\n"}},
        replies=(Reply(status=204, description="The keys were sent."),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="POST",
        path="/v1/vms/{id}/nmi",
        name="injectNmi",
        dry_run=False,
        summary="Send a non-maskable interrupt (NMI) to a virtual machine",
        handler=inject_nmi,
        role=Role.OPERATOR,
        replies=(Reply(status=204, description="The NMI was sent."),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
)
