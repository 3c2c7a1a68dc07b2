"""The WebSocket protocol, loaded when the first console is opened.

connected -> asked -> open -> closing (the guest's line ended, the client closed or broke the
                 |              protocol, the server ends, nothing is taken for STALL_S) -> lost
                 +-> refused (an HTTP answer) -> lost
A connection that is closing takes nothing more: whoever sends is told that the client has gone
(ClientDisconnected, an OSError), and the server's end leaves it as it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

    from remote_api.server.admission import Peer

__all__ = ["STALL_S", "make_protocol"]

STALL_S = 30.0
"""A client that takes nothing for so long is left. (One that answers no ping is after 40 s.)"""


def make_protocol(**arguments: Any) -> asyncio.Protocol:
    """A protocol for one upgraded connection, as uvicorn makes it."""
    from uvicorn.protocols.utils import ClientDisconnected
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
        """Keeps the connection's place among all, and leaves a client that takes nothing."""

        _stall_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """From now on it is never idle."""
            super().connection_made(transport)
            peer: Peer = self.app_state["peer"]
            peer.idle = lambda: False

        def connection_lost(self, exc: Exception | None) -> None:
            """Leave the place to others."""
            self._stop_clock()
            peer: Peer = self.app_state["peer"]
            peer.admission.gone(peer)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            """The client takes nothing: it gets a while."""
            super().pause_writing()
            if self._stall_timer is None:
                self._stall_timer = self.loop.call_later(STALL_S, self.transport.abort)

        def resume_writing(self) -> None:
            """The client took something."""
            self._stop_clock()
            super().resume_writing()

        def _stop_clock(self) -> None:
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None

        def data_received(self, data: bytes) -> None:
            """What still comes over TLS once the connection is closing is nobody's any more."""
            if not self.transport.is_closing():
                super().data_received(data)

        def handle_parser_exception(self) -> None:
            """The client broke the protocol; before the handshake there is no frame to say so."""
            if self.conn.close_sent is not None:
                super().handle_parser_exception()
                return
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self.close_sent = self.handshake_complete = True
            self.transport.close()

        def shutdown(self) -> None:
            """The server ends: say so to the client, unless the connection is closing already.

            uvicorn would send a second close frame then, which is an error that ends the loop over
            all connections.
            """
            if self._closing:
                self.stop_keepalive()
                self.transport.close()
                return
            super().shutdown()
            self.close_sent = True

        def send_500_response(self) -> None:
            """Answer a handshake that failed, if it can still be answered."""
            if not self._closing:
                super().send_500_response()

        @property
        def _closing(self) -> bool:
            conn = self.conn  # it answers a client's close frame by itself
            ended = conn.close_sent is not None or conn.eof_sent
            return self.close_sent or self.disconnected or ended or self.transport.is_closing()

        async def send(self, message: ASGISendEvent) -> None:
            """Send; an HTTP answer that is whole ends the handshake too.

            uvicorn takes it for a handshake that was never answered, and logs an error.
            """
            await self.writable.wait()
            if self._closing:
                self.handshake_complete = True  # there is none to be answered any more
                raise ClientDisconnected
            await super().send(message)
            if message["type"] == "websocket.http.response.body":
                self.handshake_complete = not message.get("more_body", False)

    return BoundedWebSocketProtocol(**arguments)
