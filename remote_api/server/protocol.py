"""The HTTP/1.1 connection: uvicorn's h11 protocol with bounds on what a client may hold.

connected -> request's head whole within HEAD_TIMEOUT_S -> served -> idle a while -> closed
                                     answers not taken for STALL_S -> closed
What the parser refuses is answered by a problem document, as everything else is. h11 takes more
than RFC 9112 wants taken: a line that ends in LF alone, a header that goes on in the next line.
Programs disagree on where such a head ends, so it is refused here.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

import h11
import msgspec
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from remote_api.http.problems import ApiError, problem_document
from remote_api.schema import ProblemCode
from remote_api.server.admission import Peer
from remote_api.server.listener import grow_buffer

__all__ = ["BoundedH11Protocol", "HEAD_TIMEOUT_S", "STALL_S"]

HEAD_TIMEOUT_S = 10.0
STALL_S = 30.0
"""A client that takes nothing for so long is left, with what was to be sent to it."""
READ_AHEAD_BYTES = 64 << 10
UNSENT_BYTES = 64 << 10
"""What is held for a client that doesn't take it; asyncio's own limit for TLS is 512 KiB."""
_LENIENT = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\n[ \t]")
_HEAD_END = re.compile(rb"\n\r?\n")


class BoundedH11Protocol(H11Protocol):
    """One connection; `app_state` holds its `peer`."""

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._peer: Peer = self.app_state["peer"]
        # h11 has no switch for it, and only its buffer sees the octets of every head.
        self.conn._receive_buffer = _StrictBuffer()

    def connection_made(self, transport: Any) -> None:
        """Take its place, and start the clock for its first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNSENT_BYTES)
        transport.set_read_buffer_limits(high=READ_AHEAD_BYTES)
        self._peer.end = transport.abort
        self._peer.idle = self._idle
        self._peer.trusted = lambda: grow_buffer(transport)
        if not self._peer.admission.opened(self._peer):
            transport.abort()
            return
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks and leave the place to others."""
        self._stop_clock()
        self._stop_stall_clock()
        self._peer.admission.gone(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request that has begun must become whole in time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_too_slow)
        else:
            self._stop_clock()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on the connection is another protocol's, and so is its place."""
        self._stop_clock()
        self._stop_stall_clock()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """The client takes nothing: it gets a while."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALL_S, self._stalled)

    def resume_writing(self) -> None:
        """The client took something."""
        self._stop_stall_clock()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's name
        """Answer what is no HTTP by a problem document."""
        self._peer.admission.counters["malformed"] += 1
        self._refuse(ApiError(ProblemCode.MALFORMED, "The request is not valid HTTP/1.1."))

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_stall_clock(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self) -> None:
        self._stall_timer = None
        self._peer.admission.counters["stalled"] += 1
        self.transport.abort()

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._peer.admission.counters["slow-head"] += 1
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = msgspec.json.encode(problem_document(error, secrets.token_hex(8)))
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode("ascii")))
        for event in (
            h11.Response(status_code=error.status, headers=headers, reason=b""),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _StrictBuffer(ReceiveBuffer):
    """h11's buffer, which takes heads (and trailers) only in the form that RFC 9112 gives them."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """As h11's; h11.RemoteProtocolError where lines end otherwise than in CR LF."""
        end = _HEAD_END.search(self._data, self._multiple_lines_search)
        head = self._data[: end.end()] if end is not None else self._data
        if self._data[:1] == b"\n" or _LENIENT.search(head):
            raise h11.RemoteProtocolError("a line ends in a bare CR or LF, or is folded")
        return super().maybe_extract_lines()
