"""An HTTP/1.1 connection: h11 over asyncio, with bounds on what a client may hold.

connected -> request's head whole within HEAD_TIMEOUT_S -> answered -> idle KEEP_ALIVE_S -> closed
                        |                   answers not taken for STALL_S -> closed
                        +-> upgraded to a WebSocket: websocket.py has the connection from there on
What the parser refuses is answered with a problem document, like everything else. h11 accepts more
than RFC 9112 wants: a line that ends in LF alone, a header that continues in the next line.
Programs disagree on where such a head ends, so it is refused here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets

import h11
import msgspec

from remote_api.http.application import MAX_HEAD_BYTES
from remote_api.http.problems import PROBLEM_TYPE, problem_document
from remote_api.schema import ApiError, HttpCode
from remote_api.server.admission import Peer
from remote_api.server.connection import Clock, Connection, Connections, Message, phrase_of
from remote_api.server.listener import UNSENT_BYTES, grow_buffer

__all__ = ["HEAD_TIMEOUT_S", "HttpConnection", "KEEP_ALIVE_S"]

logger = logging.getLogger("mica.api")

HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 15.0
"""How long a connection stays open without a request."""
READ_AHEAD_BYTES = 64 << 10
"""How much of a body is buffered before the application reads it."""
_LENIENT = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\n[ \t]")
_UNANSWERED = (h11.IDLE, h11.SEND_RESPONSE)


class HttpConnection(Connection):
    """One connection; `peer` is its place."""

    def __init__(self, connections: Connections, peer: Peer) -> None:
        super().__init__(connections, peer)
        self._conn = h11.Connection(h11.SERVER, MAX_HEAD_BYTES)
        self._turn: _Turn | None = None
        self._chunked = False
        self._head_clock = Clock(HEAD_TIMEOUT_S, self._head_too_slow)
        self._idle_clock = Clock(KEEP_ALIVE_S, self._idle_too_long)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take its place, and start the clock for its first request."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=UNSENT_BYTES)
        set_read_limits = getattr(transport, "set_read_buffer_limits", None)
        if set_read_limits is not None:  # a transport of TLS has a buffer for reading too
            set_read_limits(high=READ_AHEAD_BYTES)
        self.peer.end = self.transport.abort
        self.peer.idle = lambda: self._turn is None or self._turn.complete
        self.peer.trusted = lambda: grow_buffer(transport)
        if not self.peer.admission.opened(self.peer):
            self.transport.abort()
            return
        self._head_clock.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the request in progress, if there is one."""
        if self._turn is not None:
            self._turn.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request that has begun must become whole in time."""
        if self.closing:
            return
        self._conn.receive_data(data)
        self._parse()

    def shutdown(self) -> None:
        """Close it, or close it after the answer that is under way."""
        if self._turn is None or self._turn.complete:
            self.transport.close()
        else:
            self._turn.last = True

    def answered(self) -> None:
        """Continue with the next request, which may have arrived already."""
        if self._conn.our_state is h11.MUST_CLOSE or (self._turn and self._turn.last):
            self.transport.close()
        if self.closing:
            return
        self._idle_clock.restart()
        self.resume_reading()
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()
            self._parse()

    def _parse(self) -> None:
        while not self.closing:
            by_lines = self._chunked or self._conn.their_state is h11.IDLE
            before = self._conn.trailing_data[0] if by_lines else b""
            try:
                event = self._conn.next_event()
                if by_lines:
                    self._check_lines(event, before)
            except h11.RemoteProtocolError as error:
                self._refuse(error)
                return
            if event is h11.PAUSED:  # the next request, before this one is answered
                self.pause_reading()
                break
            if event is h11.NEED_DATA:
                break
            if isinstance(event, h11.Request) and self._begin(event):
                return
            if isinstance(event, h11.Data):
                self._take(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._chunked = False
                if self._conn.our_state is h11.DONE:
                    self.resume_reading()
                    self._conn.start_next_cycle()
                    continue
                if self._turn is not None:
                    self._turn.whole()
                if self._conn.their_state is h11.MUST_CLOSE:
                    break
        if self._conn.their_state is h11.IDLE and self._conn.trailing_data[0]:
            self._idle_clock.stop()
            self._head_clock.start()

    def _check_lines(self, event: object, before: bytes) -> None:
        """Refuse lines that don't end in CR LF: of a head, or of a body's trailers. Raises
        h11.RemoteProtocolError.

        The bytes `before` that an event has used are a head, or the last chunk with the trailers;
        of an incomplete head, all are there.
        """
        if isinstance(event, h11.Request | h11.EndOfMessage):
            used = before[: len(before) - len(self._conn.trailing_data[0])]
        elif event is h11.NEED_DATA and self._conn.their_state is h11.IDLE:
            used = before
        else:
            return
        if _LENIENT.search(used):
            raise h11.RemoteProtocolError("a line ends in a bare CR or LF, or is folded")

    def _begin(self, request: h11.Request) -> bool:
        """Have a request answered; True if the connection is another protocol's from here on."""
        self._head_clock.stop()
        self._idle_clock.stop()
        headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        if _wants_websocket(request, headers):
            self._upgrade(request, headers)
            return True
        self._chunked = any(name == b"transfer-encoding" for name, _ in headers)
        scope = self.scope("http", request.target, headers)
        scope["method"] = request.method.decode("ascii")
        scope["http_version"] = request.http_version.decode("ascii")
        self._turn = _Turn(self, self._conn, scope)
        self.connections.run(self._turn.run())
        return False

    def _take(self, data: bytes) -> None:
        if self._turn is None or self._turn.complete:
            return  # the rest of a body that the answer didn't need
        self._turn.body += data
        if len(self._turn.body) > READ_AHEAD_BYTES:
            self.pause_reading()
        self._turn.news.set()

    def _upgrade(self, request: h11.Request, headers: list[tuple[bytes, bytes]]) -> None:
        """From here on the connection is another protocol's, and so is its place."""
        from remote_api.server.websocket import WebSocketConnection

        self._leave()
        protocol = WebSocketConnection(self.connections, self.peer)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.ask(request.target, headers)
        if early := self._conn.trailing_data[0]:
            protocol.data_received(early)

    def _leave(self) -> None:
        self._head_clock.stop()
        self._idle_clock.stop()
        super()._leave()

    def _idle_too_long(self) -> None:
        self.transport.close()

    def _head_too_slow(self) -> None:
        if not self.closing:
            self.peer.admission.counters["slow-head"] += 1
            self.transport.close()

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer invalid HTTP with a problem document, and close."""
        self.peer.admission.counters["malformed"] += 1
        if self._turn is not None:
            self._turn.leave()
        if self._conn.our_state in _UNANSWERED:
            self._send_problem(_problem(error))
        self.transport.close()

    def _send_problem(self, problem: ApiError) -> None:
        body = msgspec.json.encode(problem_document(problem, secrets.token_hex(8)))
        headers = [
            (b"date", self.connections.date),
            (b"content-type", PROBLEM_TYPE.encode("ascii")),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        for event in (_response(problem.status, headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self._conn.send(event) or b"")


class _Turn:
    """One request and its answer, as an ASGI application has them."""

    def __init__(self, connection: HttpConnection, conn: h11.Connection, scope: Message) -> None:
        self._connection = connection
        self._conn = conn
        self._scope = scope
        self.body = bytearray()
        self.news = asyncio.Event()
        """Set when there is more of the body, or no more to wait for."""
        self.complete = False
        """The response is sent."""
        self.last = False
        """Whether the connection ends with this answer."""
        self._more_body = True
        self._gone = False
        self._begun = False

    def whole(self) -> None:
        """The body is complete."""
        self._more_body = False
        self.news.set()

    def leave(self) -> None:
        """The client has gone, or may have no answer any more."""
        if not self.complete:
            self._gone = True
        self.news.set()

    async def run(self) -> None:
        """Have it answered; an answer that isn't whole closes the connection, so that it shows."""
        try:
            await self._connection.connections.application(self._scope, self.receive, self.send)
        except Exception:
            logger.exception("a request was not answered, by a defect")
        finally:
            if not self.complete and not self._gone:
                self._connection.transport.close()

    async def receive(self) -> Message:
        """The next part of the body, or that the client has gone or needs no more."""
        if self._conn.they_are_waiting_for_100_continue and not self._connection.closing:
            self._write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        if not (self._gone or self.complete):
            self._connection.resume_reading()
            await self.news.wait()
            self.news.clear()
        if self._gone or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def send(self, message: Message) -> None:
        """Send a part of the response once the client has accepted those before it.

        Data for a client that has disconnected are dropped; `receive` reports that to the
        application.
        """
        await self._connection.writable.wait()
        if self._gone:
            return
        if not self._begun:
            self._begun = True
            headers = [(b"date", self._connection.connections.date), *message["headers"]]
            self._write(_response(message["status"], headers))
            return
        data = b"" if self._scope["method"] == "HEAD" else message.get("body", b"")
        self._write(h11.Data(data=data))
        if not message.get("more_body", False):
            self._write(h11.EndOfMessage())
            self.complete = True
            self.news.set()
            self._connection.answered()

    def _write(self, event: h11.Event) -> None:
        self._connection.transport.write(self._conn.send(event) or b"")


def _response(status: int, headers: list[tuple[bytes, bytes]]) -> h11.Response:
    reason = phrase_of(status).encode("ascii")
    return h11.Response(status_code=status, headers=headers, reason=reason)


def _wants_websocket(request: h11.Request, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether it is an upgrade (RFC 6455 section 4.1); anything else is answered as HTTP."""
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        named.setdefault(name, []).extend(part.strip().lower() for part in value.split(b","))
    upgrade = b"upgrade" in named.get(b"connection", ()) and named.get(b"upgrade") == [b"websocket"]
    return upgrade and request.method == b"GET" and request.http_version == b"1.1"


def _problem(error: h11.RemoteProtocolError) -> ApiError:
    if error.error_status_hint == 431:
        return ApiError(
            HttpCode.HEAD_TOO_LARGE, f"The request's head is larger than {MAX_HEAD_BYTES} bytes."
        )
    return ApiError(HttpCode.MALFORMED, "The request is not valid HTTP/1.1.")
