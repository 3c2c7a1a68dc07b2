"""A request that becomes a WebSocket: what its route is given, and how it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from remote_api.http.exchange import ApiState, Peer, Receive, Scope, Send
from remote_api.http.responses import encoded_headers, problem_response
from remote_api.schema import ApiError

__all__ = ["Upgrade", "refuse"]

QueryT = TypeVar("QueryT")


@dataclass(frozen=True, kw_only=True)
class Upgrade(Generic[QueryT]):
    """A WebSocket that was asked for, and is neither accepted nor refused yet."""

    state: ApiState
    scope: Scope
    parameters: Mapping[str, str]
    query: QueryT
    request_id: str
    receive: Receive
    send: Send

    @property
    def origin(self) -> str:
        return str((self.scope.get("client") or ("",))[0])

    @property
    def peer(self) -> Peer | None:
        peer: Peer | None = self.scope.get("state", {}).get("peer")
        return peer


async def refuse(error: ApiError, request_id: str, send: Send) -> None:
    """Answer by a problem document instead."""
    response = problem_response(error, request_id)
    headers = encoded_headers(response, request_id)
    await send(
        {"type": "websocket.http.response.start", "status": response.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": response.body})
