"""A WebSocket connection: websockets' Sans-I/O protocol over asyncio; loaded with the first one.

asked -> open -> closing (the guest's line ended, the client closed or broke the protocol,
     |                     the server ends, nothing is taken for STALL_S) -> lost
     +-> refused (an HTTP answer) -> lost
A closing connection accepts nothing more: sending raises ClientGoneError, and the server's shutdown
leaves it alone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from enum import Enum

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from remote_api.server.admission import Peer
from remote_api.server.connection import Clock, Connection, Connections, Message, phrase_of

__all__ = ["ClientGoneError", "WebSocketConnection"]

logger = logging.getLogger("mica.api")

MAX_MESSAGE_BYTES = 1 << 20
PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 20.0
"""A client that answers no ping is left 40 s after its last answer. While it isn't read, because
what came of it is still to be used, its answer can't be seen: that time doesn't count."""
HELD_S = 120.0
"""How long it may not be read: longer than a guest that lives takes for a message."""
CLOSE_TIMEOUT_S = 10.0
"""How long a client has to answer that the connection is closed."""
_NO_CODE, _ABNORMAL, _INVALID_DATA, _FAILED, _RESTART = 1005, 1006, 1007, 1011, 1012
"""Close codes (RFC 6455 section 7.4.1 and its registry)."""


class ClientGoneError(ConnectionError):
    """The client has gone, or the connection is about to end: nothing is sent any more."""


class _Stage(Enum):
    ASKED = "asked"
    OPEN = "open"
    CLOSING = "closing"


class WebSocketConnection(Connection):
    """One connection that was upgraded."""

    def __init__(self, connections: Connections, peer: Peer) -> None:
        super().__init__(connections, peer)
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE_BYTES)
        self._stage = _Stage.ASKED
        self._early = b""
        """Data that arrived before the response; read after that."""
        self._acceptance: Response | None = None
        self._refusal: Message = {}
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._parts: list[bytes] = []
        self._text = False
        self._ping = b""
        self._ping_clock = Clock(PING_INTERVAL_S, self._send_ping)
        self._pong_clock = Clock(PONG_TIMEOUT_S, self.give_up)
        self._close_clock = Clock(CLOSE_TIMEOUT_S, self._end)
        self._held_clock = Clock(HELD_S, self.give_up)
        self._pong_due = False
        """Whether its answer to a ping was waited for when it was last read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on its place is never an idle one's."""
        super().connection_made(transport)
        self.peer.idle = lambda: False

    def ask(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin with the request for the upgrade: a GET, as HTTP has parsed it."""
        lines = [b"GET %b HTTP/1.1" % target, *(b"%b: %b" % header for header in headers)]
        self._protocol.receive_data(b"\r\n".join([*lines, b"", b""]))
        for event in self._protocol.events_received():
            assert isinstance(event, Request)
            response = self._protocol.accept(event)
            if response.status_code == 101:
                self._acceptance = response
            else:
                self._protocol.send_response(response)
        self._flush()
        if self._acceptance is None:
            self._end()
            return
        offered = [value for name, value in headers if name == b"sec-websocket-protocol"]
        scope = self.scope("websocket", target, headers)
        scope["scheme"] = "wss"
        scope["subprotocols"] = [
            name.strip() for value in offered for name in value.decode("latin-1").split(",")
        ]
        self._messages.put_nowait({"type": "websocket.connect"})
        self.connections.run(self._run(scope))

    def data_received(self, data: bytes) -> None:
        """Receive frames; those that arrive while the connection is closing are ignored."""
        if self.closing:
            return
        if self._stage is _Stage.ASKED:
            self._early += data
        else:
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._take(event)
            self._flush()
        self._read_or_wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the application, if it doesn't know yet."""
        self._tell(_NO_CODE if self._stage is not _Stage.ASKED else _ABNORMAL)
        self._stage = _Stage.CLOSING
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """A client that takes nothing may send nothing either: each of its pings has an answer."""
        super().pause_writing()
        self._read_or_wait()

    def resume_writing(self) -> None:
        """Sending can continue."""
        super().resume_writing()
        self._read_or_wait()

    def shutdown(self) -> None:
        """The server ends: notify the client, unless the connection is closing already."""
        if self._stage is _Stage.ASKED and not self.closing and not self._refusal:
            self._refuse({"status": 503, "headers": []}, b"")
        elif self._stage is _Stage.OPEN and not self.closing:
            self._close(_RESTART)
        self._end()

    def give_up(self) -> None:
        """The client answers no ping."""
        self._pong_clock.stop()
        if self._stage is _Stage.OPEN and not self.closing:
            self._protocol.fail(_FAILED, "keepalive ping timeout")
            self._flush()

    async def receive(self) -> Message:
        """The client's next message, or that it has gone."""
        message = await self._messages.get()
        self._read_or_wait()
        return message

    async def send(self, message: Message) -> None:
        """Answer the request, send a message, or close. Raises ClientGoneError."""
        await self.writable.wait()
        if self._stage is _Stage.CLOSING or self.closing:
            raise ClientGoneError("the client has gone")
        kind = message["type"]
        if kind == "websocket.accept":
            self._accept(message.get("subprotocol"))
        elif kind == "websocket.send":
            if (data := message.get("bytes")) is not None:
                self._protocol.send_binary(data)
            else:
                self._protocol.send_text(message["text"].encode())
            self._flush()
        elif kind == "websocket.close" and self._stage is _Stage.ASKED:
            self._refuse({"status": 403, "headers": []}, b"")
        elif kind == "websocket.close":
            self._close(message["code"])
            self._close_clock.start()
            self._read_or_wait()
        elif kind == "websocket.http.response.start":
            self._refusal = message
        else:
            self._refuse(self._refusal, message["body"])

    async def _run(self, scope: Message) -> None:
        try:
            await self.connections.application(scope, self.receive, self.send)
        except ClientGoneError:
            logger.debug("the client of a WebSocket has gone")
        except Exception:
            logger.exception("a WebSocket ends by a defect")
        finally:
            if self._stage is _Stage.ASKED and not self.closing:
                self._refuse({"status": 500, "headers": []}, b"")
            elif self._stage is _Stage.OPEN and not self.closing:
                self._close(_FAILED)
            if not self._close_clock.running:
                self._end()

    def _accept(self, subprotocol: str | None) -> None:
        assert self._acceptance is not None
        if subprotocol is not None:
            self._acceptance.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._protocol.send_response(self._acceptance)
        self._stage = _Stage.OPEN
        self._flush()
        self._ping_clock.start()
        early, self._early = self._early, b""
        if early:
            self.data_received(early)
        self._read_or_wait()

    def _refuse(self, start: Message, body: bytes) -> None:
        """Answer by HTTP, which ends the connection."""
        headers = Headers()
        for name, value in start["headers"]:
            headers[name.decode("latin-1")] = value.decode("latin-1")
        for name, text in (
            ("Date", self.connections.date.decode("ascii")),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
        ):
            headers.setdefault(name, text)
        status = start["status"]
        self._tell(_ABNORMAL)
        self._protocol.send_response(Response(status, phrase_of(status), headers, body))
        self._flush()
        self._end()

    def _close(self, code: int) -> None:
        self._tell(code)
        self._protocol.send_close(code)
        self._stage = _Stage.CLOSING
        self._flush()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            self._tell(_NO_CODE if received is None else received.code)
        elif frame.opcode is Opcode.PONG:
            if bytes(frame.data) == self._ping:
                self._pong_clock.stop()
                self._pong_due = False
                self._ping_clock.start()
        elif frame.opcode is not Opcode.PING:  # the protocol has answered a ping
            if frame.opcode is not Opcode.CONT:
                self._text = frame.opcode is Opcode.TEXT
                self._parts.clear()
            self._parts.append(bytes(frame.data))
            if frame.fin:
                self._deliver(b"".join(self._parts))

    def _deliver(self, data: bytes) -> None:
        self._parts.clear()
        if self._stage is not _Stage.OPEN:
            return
        if not self._text:
            self._messages.put_nowait({"type": "websocket.receive", "bytes": data})
            return
        try:
            self._messages.put_nowait({"type": "websocket.receive", "text": data.decode()})
        except UnicodeDecodeError:
            self._protocol.fail(_INVALID_DATA)
            self._flush()

    def _read_or_wait(self) -> None:
        """Read more from the client once the application has the received data, and the client its
        own.
        """
        used = self._stage is _Stage.OPEN and self._messages.empty()
        if self.writable.is_set() and (used or self._stage is _Stage.CLOSING):
            self.resume_reading()
            self._held_clock.stop()
            if self._pong_due:
                self._pong_due = False
                self._pong_clock.start()
            return
        self.pause_reading()
        if self._stage is _Stage.OPEN:
            self._held_clock.start()
            if self._pong_clock.running:
                self._pong_clock.stop()
                self._pong_due = True

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if not data:  # what websockets sends at the end of all
                self._tell(_ABNORMAL)
                self._end()
            elif not self.closing:
                self.transport.write(data)

    def _tell(self, code: int) -> None:
        """Notify the application that the client has disconnected; it reads only
        one such message.
        """
        self._messages.put_nowait({"type": "websocket.disconnect", "code": code})

    def _end(self) -> None:
        self._stage = _Stage.CLOSING
        self._stop_clocks()
        self.transport.close()

    def _leave(self) -> None:
        self._stop_clocks()
        super()._leave()

    def _stop_clocks(self) -> None:
        self._pong_due = False
        for clock in (self._ping_clock, self._pong_clock, self._close_clock, self._held_clock):
            clock.stop()

    def _send_ping(self) -> None:
        if self._stage is _Stage.OPEN and not self.closing:
            self._ping = secrets.token_bytes(4)
            self._protocol.send_ping(self._ping)
            self._flush()
            self._pong_clock.start()
            self._read_or_wait()
