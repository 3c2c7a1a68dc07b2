"""The table of routes: one typed entry gives the dispatch, the checks and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from remote_api.http.exchange import MAX_BODY_BYTES, Exchange, Response
from remote_api.http.upgrade import Upgrade
from remote_api.schema import NoQuery, ProblemCode
from vmkernel.model import Role

__all__ = [
    "AnyRoute",
    "BodyKind",
    "Condition",
    "Deprecated",
    "NoBody",
    "Registry",
    "Reply",
    "Route",
]

QueryT = TypeVar("QueryT", bound=msgspec.Struct)
BodyT = TypeVar("BodyT")


class NoBody(msgspec.Struct, frozen=True):
    """The body type of calls that take none."""


class BodyKind(StrEnum):
    """How a request's body is read; the value is its media type."""

    NONE = ""
    JSON = "application/json"
    MERGE_PATCH = "application/merge-patch+json"
    STREAM = "application/octet-stream"
    TUS = "application/offset+octet-stream"
    """A part of a resumable upload; read as a stream."""


class Condition(StrEnum):
    """Which precondition headers a route knows."""

    NONE = "none"
    CREATE = "create"
    """`If-None-Match: *` is understood: it only ever creates."""
    MATCH = "match"
    """`If-Match` is supported."""
    EITHER = "either"
    """`If-None-Match: *` creates, `If-Match` replaces; one of them is required."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A success that a route may answer."""

    status: int
    description: str
    body: type[Any] | None = None
    media_type: str = "application/json"
    also: tuple[str, ...] = ()
    """Further media types, text, that the client may prefer."""
    etag: bool = False
    location: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers that it always has, and what they mean."""


@dataclass(frozen=True, kw_only=True)
class Deprecated:
    """A route that is to go: since when, until when at least, and what replaces it."""

    since: date
    sunset: date
    """Not before this day, a year or more after `since`, is it taken away."""
    successor: str
    """The path that replaces it."""

    @property
    def text(self) -> str:
        """The sentence of the document."""
        return f"Deprecated: use {self.successor}. It stays until {self.sunset} or longer."

    @property
    def headers(self) -> dict[str, str]:
        """Deprecation (RFC 9745), Sunset (RFC 8594) and Link (RFC 8288)."""
        since, sunset = (
            datetime.combine(day, time(), tzinfo=UTC) for day in (self.since, self.sunset)
        )
        return {
            "deprecation": f"@{int(since.timestamp())}",
            "sunset": format_datetime(sunset, usegmt=True),
            "link": f'<{self.successor}>; rel="successor-version"',
        }


@dataclass(frozen=True, kw_only=True)
class Route(Generic[QueryT, BodyT]):
    """One method on one path."""

    method: str
    path: str
    name: str
    """The operation's id in OpenAPI and the name in logs."""
    summary: str
    handler: Callable[[Exchange[QueryT, BodyT]], Awaitable[Response]]
    replies: tuple[Reply, ...]
    role: Role | None = Role.VIEWER
    """The role that a token needs; None if no token is needed."""
    query: type[QueryT] = NoQuery  # type: ignore[assignment]
    body: type[BodyT] = NoBody  # type: ignore[assignment]
    body_kind: BodyKind = BodyKind.NONE
    max_body_bytes: int = MAX_BODY_BYTES
    """Of a body in JSON, from callers that have the role; 413 above it."""
    condition: Condition = Condition.NONE
    deprecated: Deprecated | None = None
    details: str = ""
    """Sentences that the document adds to the summary."""
    tag: str = ""
    """The group in the document; by default the path's first part. A module's
    `TAGS` describes it."""
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Example bodies for the document, each with a title."""
    problems: tuple[ProblemCode, ...] = ()
    """The problems that it can return besides those of every route."""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers that it reads, and what they mean."""
    body_optional: bool = False
    """A stream may be left out, with its media type."""
    dry_run: bool = True
    """False of a change that has no dry run: its outcome shows only when it is made."""
    response_headers: Mapping[str, str] = field(default_factory=dict)
    """What every answer has, failures too."""
    pointers: Mapping[str, str] = field(default_factory=dict)
    """The parameters or headers that bring what the vmkernel points to as part of a body."""
    ticketed: bool = False
    """True if `?ticket=` of an event stream may stand for the token."""
    holds_secrets: bool = False
    """True if an answer may have secrets, and is never compressed (see compression.py)."""
    websocket: Callable[[Upgrade[Any]], Awaitable[None]] | None = None
    """What serves it after an upgrade; without one, `handler` answers."""

    @property
    def has_dry_run(self) -> bool:
        """True if it takes the parameter `dry_run`."""
        plain = self.body_kind not in (BodyKind.STREAM, BodyKind.TUS)
        return (
            self.dry_run and self.method not in ("GET", "HEAD") and self.role is not None and plain
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


AnyRoute = Route[Any, Any]


class _Node:
    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: tuple[str, _Node] | None = None
        self.routes: dict[str, AnyRoute] = {}


class Registry:
    """Finds the route of a request; a tree with one level for each part of the path."""

    def __init__(self, routes: Iterable[AnyRoute]) -> None:
        self.routes: tuple[AnyRoute, ...] = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            self._add(route)

    def find(self, path: str) -> tuple[Mapping[str, AnyRoute], dict[str, str]]:
        """The routes of a path by method (empty if there is none), and its parameters."""
        node = self._root
        values: dict[str, str] = {}
        for part in path.split("/")[1:] if path.startswith("/") else [""]:
            child = node.children.get(part)
            if child is None and node.parameter is not None and part:
                name, child = node.parameter
                values[name] = part
            if child is None:
                return {}, {}
            node = child
        return node.routes, values

    def _add(self, route: AnyRoute) -> None:
        node = self._root
        for part in route.path.split("/")[1:]:
            if part.startswith("{"):
                name = part[1:-1]
                if node.parameter is None:
                    node.parameter = (name, _Node())
                if node.parameter[0] != name:
                    raise ValueError(f"{route.path}: the parameter is named otherwise elsewhere")
                node = node.parameter[1]
            else:
                node = node.children.setdefault(part, _Node())
        if route.method in node.routes:
            raise ValueError(f"{route.method} {route.path} is there twice")
        node.routes[route.method] = route
