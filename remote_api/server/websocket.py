"""The WebSocket protocol, loaded when the first console is opened."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["make_protocol"]


def make_protocol(**arguments: Any) -> asyncio.Protocol:
    """A protocol for one upgraded connection, as uvicorn makes it."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**arguments)
