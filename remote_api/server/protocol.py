"""The HTTP/1.1 connection: uvicorn's h11 protocol with bounds on what a silent client may hold.

connected -> request's head whole within HEAD_TIMEOUT_S -> served -> idle a while -> closed
          -> too many connections: 503 problem, closed
What the parser refuses is answered by a problem document, as everything else is.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from remote_api.failures import ApiError, problem_document
from remote_api.schema import ProblemCode

__all__ = ["BoundedH11Protocol", "HEAD_TIMEOUT_S", "MAX_CONNECTIONS"]

HEAD_TIMEOUT_S = 20.0
MAX_CONNECTIONS = 256


class BoundedH11Protocol(H11Protocol):
    """One connection."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Count the connection and start the clock for its first request."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(
                ApiError(
                    ProblemCode.UNAVAILABLE,
                    f"{MAX_CONNECTIONS} connections are open already; try again in a moment.",
                    retry_after_s=1,
                )
            )
            return
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
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

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's name
        """Answer what is no HTTP by a problem document."""
        self._refuse(ApiError(ProblemCode.MALFORMED, "The request is not valid HTTP/1.1."))

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
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
