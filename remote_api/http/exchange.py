"""One request and its response over ASGI: what handlers get, and how responses are sent."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    MutableMapping,
)
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from remote_api.auth import EventTickets, TicketBox
from remote_api.auth.bearer import user_of
from remote_api.http.conditions import Precondition, entity_tag, holds, is_known, mismatch
from remote_api.http.shares import AllShares, Shares
from remote_api.schema import ApiError, HttpCode
from vmkernel.control import ControlClient, Stream
from vmkernel.control.requests import Request, SubscribeEvents, WhoAmI
from vmkernel.model import ErrorCode, Event, MicaError

__all__ = [
    "ApiState",
    "BrokenStreamError",
    "ClientGoneError",
    "ConnectionFigures",
    "Exchange",
    "Headers",
    "MAX_BODY_BYTES",
    "MAX_STRANGERS_BODY_BYTES",
    "Peer",
    "Receive",
    "Response",
    "Scope",
    "Send",
    "json_response",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
QueryT = TypeVar("QueryT")
BodyT = TypeVar("BodyT")
ReplyT = TypeVar("ReplyT")

MAX_BODY_BYTES = 1 << 20
"""The default limit of a JSON body."""
MAX_STRANGERS_BODY_BYTES = 16 << 10
"""Read before the vmkernel has confirmed that the token is valid; there can be many connections."""
BODY_TIMEOUT_S = 30.0
IDLE_BODY_TIMEOUT_S = 60.0
STRANGERS_LINGER_S = 5.0
"""How long a refused body is read on. A client that sends first and reads afterwards (requests,
urllib) sees the answer only if its whole body is taken, and strangers have little to send."""
LINGER_S = 60.0
"""The same for users with a valid token: time for an image of some GiB. It costs the host no more
than an upload that is not refused."""
_LINGER_IDLE_S = 5.0
"""How long a refused body may pause; a client that waits for the answer has it by then."""

_AFTER_THE_TOKEN = frozenset(
    {
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
        ErrorCode.ALREADY_EXISTS,
        ErrorCode.IN_USE,
    }
)
"""What the vmkernel answers only to a token that it knows."""

Headers = dict[bytes, list[bytes]]


class Peer(Protocol):
    """The connection that a request came by."""

    def proven(self, user: str) -> None:
        """A valid token was used on it: from now on it counts as that user's. Raises ApiError (429,
        503).
        """
        ...


class BrokenStreamError(Exception):
    """The rest of a response can't be sent; the connection is closed, so that the
    client notices.
    """


class ClientGoneError(Exception):
    """The client disconnected before its request was complete; there is no one to answer."""


@dataclass(frozen=True, kw_only=True)
class ConnectionFigures:
    """The listener's counters."""

    open: Mapping[str, int]
    """Connections of now, by how far they are."""
    ended: Mapping[str, int]
    """Those that were ended by it, by reason."""


@dataclass(kw_only=True)
class ApiState:
    """What all requests share; none of it outlives the process, and none of it matters."""

    control: ControlClient
    tickets: TicketBox
    event_tickets: EventTickets = field(default_factory=EventTickets)
    openapi: Path
    shares: AllShares = field(default_factory=AllShares)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process ends, so that unlimited streams end then."""
    renew_identity: Callable[[], Awaitable[None]] | None = None
    """Presents the certificate that the vmkernel has now, and ends connections made before."""

    connections: Callable[[], ConnectionFigures] | None = None

    def end_streams(self) -> None:
        """End the unlimited streams; new ones may begin."""
        before, self.closing = self.closing, asyncio.Event()
        before.set()


@dataclass(kw_only=True)
class Response:
    """An answer: a whole body, or a stream of parts."""

    status: int
    body: bytes = b""
    media_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncGenerator[bytes, None] | None = None


class Exchange(Generic[QueryT, BodyT]):
    """A request as its handler sees it."""

    query: QueryT
    body: BodyT

    def __init__(
        self,
        *,
        state: ApiState,
        scope: Scope,
        receive: Receive,
        request_id: str,
        headers: Headers,
        path: str,
        parameters: dict[str, str],
    ) -> None:
        self.state = state
        self.request_id = request_id
        self.headers = headers
        self.path = path
        self.parameters = parameters
        self.token: str | None = None
        self.precondition: Precondition = None
        self.dry_run = False
        """True if nothing is to be changed."""
        self.raw_body = b""
        self.response_headers: Mapping[str, str] = {}
        self.event_id = ""
        """The last event before anything that this request answers was read."""
        self.linger_s = STRANGERS_LINGER_S
        client = scope.get("client")
        self.origin = f"{client[0]}" if client else ""
        self._peer: Peer | None = scope.get("state", {}).get("peer")
        self._receive = receive
        self._known = False
        self._held = ExitStack()
        self._body_whole = False
        self._body_asked = False

    @property
    def id(self) -> str:
        """The path's `{id}`."""
        return self.parameters["id"]

    @property
    def content_length(self) -> int | None:
        """The announced length of the body; the HTTP parser has checked its form."""
        values = self.headers.get(b"content-length")
        return int(values[0]) if values else None

    def header(self, name: str) -> str | None:
        """A header that may occur once; ApiError (400) if it occurs twice."""
        values = self.headers.get(name.lower().encode("ascii"), [])
        if len(values) > 1:
            raise ApiError(HttpCode.MALFORMED, f"The header {name} is sent more than once.")
        return values[0].decode("latin-1").strip() if values else None

    def not_modified(self, etag: str) -> Response | None:
        """The answer instead of a representation that the client has already, or else None.

        Raises ApiError (412) if the client wants another one only.
        """
        if not holds(self.headers.get(b"if-match", []), etag):
            raise mismatch()
        if is_known(self.headers.get(b"if-none-match", []), etag):
            return Response(status=304, headers={"etag": etag})
        return None

    @property
    def announced_body(self) -> bool:
        """True if the request has a body."""
        return bool(self.content_length) or b"transfer-encoding" in self.headers

    @property
    def unread_body(self) -> bool:
        """True if the client may still be sending a body that isn't read."""
        announced = self.announced_body
        waiting = b"expect" in self.headers and not self._body_asked
        return announced and not self._body_whole and not waiting

    async def call(self, request: Request[ReplyT], *, timeout_s: float = 60.0) -> ReplyT:
        """The vmkernel's answer to a request in the name of this request's token."""
        with self._as_user():
            return await self.state.control.call(
                request,
                token=self.token,
                origin=self.origin,
                timeout_s=timeout_s,
                on_position=self._note_position,
                dry_run=self.dry_run and not request.READ_ONLY,
            )

    async def open(self, request: Request[ReplyT]) -> tuple[ReplyT, Stream]:
        """The vmkernel's answer and the stream that it brings."""
        with self._as_user():
            return await self.state.control.open(request, token=self.token, origin=self.origin)

    @asynccontextmanager
    async def events(self, request: SubscribeEvents) -> AsyncIterator[AsyncIterator[Event]]:
        """Subscribe in the name of this request's token."""
        with self._as_user():
            subscription = self.state.control.events(
                request,
                token=self.token,
                origin=self.origin,
                on_position=self._note_position,
            )
            events = await subscription.__aenter__()
        try:
            yield events
        finally:
            await subscription.__aexit__(None, None, None)

    async def hold(self, shares: Shares, *, weight: int = 1) -> None:
        """Occupy one of the user's places until `ended`.

        Raises ApiError (429, 503), or the vmkernel's refusal of the token: no one can occupy
        another user's places.
        """
        if not self._known:
            await self.call(WhoAmI())
        self._held.callback(shares.take(self.user, self.origin, weight=weight))

    def ended(self) -> None:
        """Free the places; called once the response is sent, or the client has disconnected."""
        self._held.close()

    @property
    def user(self) -> str:
        """The ID of the token that the request carries, or claims to; for the
        limits of each user.
        """
        return user_of(self.token)

    @contextmanager
    def _as_user(self) -> Iterator[None]:
        """Once the vmkernel has taken the token for good, the connection is its user's."""
        try:
            yield
        except MicaError as error:
            if error.problem.code in _AFTER_THE_TOKEN:
                self._proven()
            raise
        self._proven()

    def _note_position(self, event_id: str) -> None:
        self.event_id = self.event_id or event_id

    def _proven(self) -> None:
        if self.token is None:
            return
        self._known = True
        if self._peer is not None:
            self._peer.proven(self.user)

    async def body_parts(self, idle_s: float = IDLE_BODY_TIMEOUT_S) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ClientGoneError, or ApiError (408) if nothing arrives."""
        while not self._body_whole:
            self._body_asked = True
            try:
                async with asyncio.timeout(idle_s):
                    message = await self._receive()
            except TimeoutError as error:
                raise ApiError(
                    HttpCode.REQUEST_TIMEOUT,
                    f"No data arrived for {idle_s:g} s; send the request again.",
                ) from error
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._body_whole = not message.get("more_body", False)
            if part := message.get("body", b""):
                yield part

    async def read_body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The whole body. Raises ApiError: 413 over the limit, 408 if it arrives too slowly."""
        if (self.content_length or 0) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for part in self.body_parts():
                    body += part
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError as error:
            raise ApiError(
                HttpCode.REQUEST_TIMEOUT,
                f"The body did not arrive completely within {BODY_TIMEOUT_S:g} s; send the"
                " request again.",
            ) from error
        return bytes(body)

    async def drain(self) -> None:
        """Read and discard for a while what an early response left unread.

        Closing a connection on unread data would reset it, and the client might never see why.
        """
        try:
            async with asyncio.timeout(self.linger_s):
                async for _ in self.body_parts(_LINGER_IDLE_S):
                    pass
        except (TimeoutError, ClientGoneError, ApiError):
            return

    async def gone(self) -> None:
        """Return once the client has gone (for answers that stream)."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def json_response(
    value: msgspec.Struct,
    *,
    status: int = 200,
    version: int | str | None = None,
    location: str | None = None,
) -> Response:
    """A JSON answer; with a `version` of its object, it has an ETag that If-Match takes."""
    body = msgspec.json.encode(value)
    headers: dict[str, str] = {}
    if version is not None:
        headers["etag"] = entity_tag(str(version), body)
    if location is not None:
        headers["location"] = location
    return Response(
        status=status,
        body=body,
        media_type="application/json",
        headers=headers,
    )


def _too_large(limit: int) -> ApiError:
    return ApiError(HttpCode.TOO_LARGE, f"The body is larger than {limit} bytes.")
