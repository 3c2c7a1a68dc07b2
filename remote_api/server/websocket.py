"""The WebSocket protocol, loaded when the first console is opened."""

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

        async def send(self, message: ASGISendEvent) -> None:
            """Send; an HTTP answer that is whole ends the handshake too.

            uvicorn takes it for a handshake that was never answered, and logs an error.
            """
            await super().send(message)
            if message["type"] == "websocket.http.response.body":
                self.handshake_complete = not message.get("more_body", False)

    return BoundedWebSocketProtocol(**arguments)
