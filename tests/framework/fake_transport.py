"""A connection without a network, for the API's protocols."""

from __future__ import annotations

import asyncio
from typing import Any

from remote_api.server.admission import Admission, Peer

__all__ = ["FakeTransport", "admitted"]


class FakeTransport(asyncio.Transport):
    """A client that is slow to read: a closed connection is lost later."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed_event = asyncio.Event()
        self.aborted = False
        self.reading = True
        self.protocol: Any = None

    @property
    def closed(self) -> bool:
        """Nothing more is sent."""
        return self.closed_event.is_set()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed_event.set()

    def abort(self) -> None:
        self.aborted = True
        self.closed_event.set()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def admitted() -> Peer:
    """The place of a connection whose handshake is done."""
    peer = Admission().arrive("192.0.2.1", begin=lambda: None, end=lambda: None)
    peer.admission.spoke(peer)
    assert peer.admission.next_ready() is peer
    return peer
