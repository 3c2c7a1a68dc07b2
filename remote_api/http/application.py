"""The ASGI application: finds the route, checks the request, runs the handler, sends the answer.

request -> route -> token -> query, headers, body -> handler -> vmkernel -> answer
Every failure becomes a problem document; all faults of query, headers and body are reported
together. If a request is wrong *and* not allowed, only the missing permission is reported: a
failure
first asks the vmkernel for the token's role.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec

from remote_api.auth import bearer_token
from remote_api.http.compression import (
    MIN_BYTES,
    accepts_gzip,
    coded_tag,
    compress,
    is_compressible,
)
from remote_api.http.conditions import Absent, Matching, entity_tag, parse_precondition
from remote_api.http.decode import check_id, check_patch, decode_body, decode_query, take_dry_run
from remote_api.http.exchange import (
    LINGER_S,
    MAX_BODY_BYTES,
    MAX_STRANGERS_BODY_BYTES,
    ApiState,
    BrokenStreamError,
    ClientGoneError,
    Exchange,
    Headers,
    Receive,
    Response,
    Scope,
    Send,
)
from remote_api.http.negotiation import check_accept, check_media_type
from remote_api.http.preferences import apply_preferences
from remote_api.http.problems import Failures, api_error
from remote_api.http.responses import encoded_headers, problem_response
from remote_api.http.routing import BodyKind, Condition, Registry, Route
from remote_api.http.upgrade import Upgrade, refuse
from remote_api.schema import ApiError, HttpCode
from vmkernel.control.requests import WhoAmI
from vmkernel.model import ErrorCode, MicaError, Role

__all__ = ["Application", "MAX_HEAD_BYTES"]

logger = logging.getLogger("mica.api")

MAX_HEAD_BYTES = 16 << 10
_READER_STALL_S = 120.0
_PART_BYTES = 64 << 10
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_NOTHING = re.compile(rb"\s*(\{\s*\}|null)?\s*\Z")
_ABSOLUTE = re.compile(r"https?://[^/]*", re.I)
_OPERATION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
"""For a year (RFC 6797); browsers heed it once they trust the certificate."""
_CODINGS = "accept-encoding"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_MALFORMED = HttpCode.MALFORMED
EVENT_ID_HEADER = "mica-event-id"
"""No part of the body: each event would change the ETag of every list."""
_SAID_ANYWAY = frozenset(
    {
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.FORBIDDEN,
        ErrorCode.RATE_LIMITED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.INTERNAL,
    }
)
"""Failures that are about the token, or about the host: no missing right is answered instead."""


class Application:
    """The API as an ASGI application."""

    def __init__(self, registry: Registry, state: ApiState) -> None:
        self._registry = registry
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        # A target may have the whole URL (RFC 9112 section 3.2.2).
        if absolute := _ABSOLUTE.match(scope["path"]):
            scope["path"] = scope["path"][absolute.end() :] or "/"
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(8)
        headers = _headers(scope)
        path: str = scope["path"]
        routes, parameters = self._registry.find(path)
        exchange: Exchange[Any, Any] = Exchange(
            state=self.state,
            scope=scope,
            receive=receive,
            request_id=request_id,
            headers=headers,
            path=path,
            parameters=parameters,
        )
        method = cast(str, scope["method"])
        try:
            await self._respond(exchange, routes, method, scope, send)
        finally:
            exchange.ended()

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        request_id = secrets.token_hex(8)
        routes, parameters = self._registry.find(scope["path"])
        route = routes.get("GET")
        try:
            if route is None or route.websocket is None:
                raise ApiError(ErrorCode.NOT_FOUND, "There is no WebSocket at this path.")
            query = decode_query(scope["query_string"], route.query)
        except ApiError as error:
            await refuse(error, request_id, send)
            return
        await route.websocket(
            Upgrade(
                state=self.state,
                scope=scope,
                parameters=parameters,
                query=query,
                request_id=request_id,
                receive=receive,
                send=send,
            )
        )

    async def _respond(
        self,
        exchange: Exchange[Any, Any],
        routes: Mapping[str, Route[Any, Any]],
        method: str,
        scope: Scope,
        send: Send,
    ) -> None:
        request_id = exchange.request_id
        try:
            response = await self._answer(exchange, routes, method, scope)
            await _hold_answer(exchange, response)
        except ClientGoneError:
            return
        except ApiError as error:
            response = problem_response(error, request_id)
        except MicaError as error:
            response = problem_response(api_error(error.problem), request_id)
        except Exception:
            logger.exception(
                "request %s (%s %s) failed by a defect", request_id, method, exchange.path
            )
            response = problem_response(
                ApiError(
                    ErrorCode.INTERNAL,
                    "Internal error; the host's log has this request's ID.",
                ),
                request_id,
            )
        response.headers = {**exchange.response_headers, **response.headers}
        await _send(exchange, response, send, head=method == "HEAD")

    async def _answer(
        self,
        exchange: Exchange[Any, Any],
        routes: Mapping[str, Route[Any, Any]],
        method: str,
        scope: Scope,
    ) -> Response:
        _check_head(scope)
        route = _choose(routes, method, exchange.path)
        exchange.response_headers = route.response_headers
        if route.deprecated is not None:
            exchange.response_headers = {**route.response_headers, **route.deprecated.headers}
        if route.role is not None:
            ticket = _ticket(scope) if route.ticketed else None
            if ticket is not None and b"authorization" not in exchange.headers:
                exchange.token = exchange.state.event_tickets.token_of(ticket)
            else:
                exchange.token = bearer_token(exchange.headers.get(b"authorization", []))
        try:
            await self._check(exchange, route, scope)
            if method == "HEAD" and route.role is not Role.VIEWER:
                # It asks the vmkernel for less than its GET does, which a viewer may know.
                await self._require_role(exchange, route)
            response = await route.handler(exchange)
            if route.method in ("GET", "HEAD") and exchange.event_id:
                response.headers.setdefault(EVENT_ID_HEADER, exchange.event_id)
        except (ApiError, MicaError) as error:
            failure = _settle(error, exchange, route)
            if failure.code not in _SAID_ANYWAY:
                await self._require_role(exchange, route)
            raise failure from error
        return await _conditional(exchange, route, method, response)

    async def _check(
        self, exchange: Exchange[Any, Any], route: Route[Any, Any], scope: Scope
    ) -> None:
        for name, value in exchange.parameters.items():
            pattern = _OPERATION_ID if "/operations/" in route.path else _SLUG
            if not pattern.match(value):
                raise ApiError(ErrorCode.NOT_FOUND, _no_name(name, value, pattern is _SLUG))
        failures = Failures()
        with failures.noted():
            text = scope["query_string"]
            if route.has_dry_run:
                exchange.dry_run, text = take_dry_run(text)
            query = decode_query(text, route.query)
            exchange.query, applied = apply_preferences(exchange.headers, query)
            exchange.response_headers = {**exchange.response_headers, **applied}
        with failures.noted():
            check_accept(exchange.headers, route)
        with failures.noted():
            _check_condition(exchange, route)
        with failures.noted():
            await self._read_body(exchange, route)
            if failures and route.body_kind is BodyKind.MERGE_PATCH:
                check_patch(exchange.raw_body, route.body)
        failures.end()

    async def _read_body(self, exchange: Exchange[Any, Any], route: Route[Any, Any]) -> None:
        if route.body_kind is BodyKind.NONE:
            if exchange.content_length or b"transfer-encoding" in exchange.headers:
                await self._read_nothing(exchange)
            return
        if route.body_optional and not exchange.announced_body:
            return
        check_media_type(exchange.headers, route)
        if route.body_kind in (BodyKind.STREAM, BodyKind.TUS):
            return
        if route.role is None:
            exchange.raw_body = await exchange.read_body(MAX_STRANGERS_BODY_BYTES)
        else:
            if (exchange.content_length or MAX_BODY_BYTES) > MAX_STRANGERS_BODY_BYTES:
                await self._require_role(exchange, route)
                size = exchange.content_length or route.max_body_bytes
                await exchange.hold(
                    exchange.state.shares.bodies, weight=min(size, route.max_body_bytes)
                )
            exchange.raw_body = await exchange.read_body(route.max_body_bytes)
        if route.body_kind is BodyKind.JSON:
            exchange.body = decode_body(exchange.raw_body, route.body)
            check_id(exchange.body, exchange.path)

    @staticmethod
    async def _read_nothing(exchange: Exchange[Any, Any]) -> None:
        """Take the empty JSON that some clients always send; raise ApiError (400) for a body."""
        if not _NOTHING.match(await exchange.read_body(MAX_STRANGERS_BODY_BYTES)):
            raise ApiError(HttpCode.MALFORMED, "This request takes no body; send none, or `{}`.")

    async def _require_role(self, exchange: Exchange[Any, Any], route: Route[Any, Any]) -> None:
        if route.role is None:
            return
        token = await exchange.call(WhoAmI())
        exchange.linger_s = LINGER_S
        role = token.spec.role
        if not role.includes(route.role):
            raise ApiError(
                ErrorCode.FORBIDDEN,
                f"The token {token.id} has the role {role}; this needs the role {route.role}.",
            )


def _ticket(scope: Scope) -> str | None:
    """What the query gives as a ticket; the rest of the query is checked later."""
    found = re.search(rb"(?:^|&)ticket=([A-Za-z0-9_-]{1,128})(?:&|\Z)", scope["query_string"])
    return found and found[1].decode("ascii")


def _this_machine(headers: Headers) -> bool:
    """Whether the client addresses the host as `localhost`: other programs use
    that name for HTTP.
    """
    name = headers.get(b"host", [b""])[0].rpartition(b":")[0] or headers.get(b"host", [b""])[0]
    return name.lower() == b"localhost" or name.lower().endswith(b".localhost")


def _headers(scope: Scope) -> Headers:
    headers: Headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value)
    return headers


def _check_head(scope: Scope) -> None:
    """Bound the head, which the parser does only while it is incomplete, and its two lengths."""
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names and b"transfer-encoding" in names:
        # RFC 9112 section 6.1: such a request may be meant to smuggle another one.
        raise ApiError(
            HttpCode.MALFORMED,
            "Send Content-Length or Transfer-Encoding, not both.",
            headers={"connection": "close"},
        )
    size = len(scope["path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size > MAX_HEAD_BYTES:
        raise ApiError(
            HttpCode.HEAD_TOO_LARGE, f"The request's head is larger than {MAX_HEAD_BYTES} bytes."
        )


def _choose(routes: Mapping[str, Route[Any, Any]], method: str, path: str) -> Route[Any, Any]:
    if not routes:
        raise ApiError(ErrorCode.NOT_FOUND, f"There is nothing at {path[:200]!r}.")
    route = routes.get(method)
    if route is None and method == "HEAD":
        route = routes.get("GET")
        if route is not None and route.replies[0].media_type != "application/json":
            route = None
    if route is None:
        get = routes.get("GET")
        answers_head = get is not None and get.replies[0].media_type == "application/json"
        allowed = sorted({*routes, "HEAD"} if answers_head else routes)
        raise ApiError(
            HttpCode.METHOD_NOT_ALLOWED,
            f"{method} is not allowed here; use {', '.join(allowed)}.",
            headers={"allow": ", ".join(allowed)},
        )
    return route


def _no_name(name: str, value: str, slug: bool) -> str:
    form = (
        " Use lower-case letters, digits and inner hyphens, at most 63 characters." if slug else ""
    )
    return f"{value[:80]!r} is not a valid {name}.{form}"


def _check_condition(exchange: Exchange[Any, Any], route: Route[Any, Any]) -> None:
    """Read what the headers demand of the object. Raises ApiError: 400, 412, 428."""
    if route.condition is Condition.NONE:
        # Ignored, it would let a change through that the client wanted to be held back.
        for name in ("If-Match", "If-None-Match") if route.method not in _SAFE else ():
            if name.lower().encode("ascii") in exchange.headers:
                raise ApiError.field(name, "This request does not support this header.", _MALFORMED)
        return
    exchange.precondition = given = parse_precondition(
        exchange.headers.get(b"if-match", []), exchange.headers.get(b"if-none-match", [])
    )
    if route.condition is Condition.EITHER and given is None:
        raise ApiError(
            HttpCode.PRECONDITION_REQUIRED,
            "Send `If-None-Match: *` to create the object, or its ETag in If-Match to replace it.",
        )
    if route.condition is Condition.CREATE and isinstance(given, Matching):
        raise ApiError.field(
            "If-Match", "This request only creates objects; omit this header.", _MALFORMED
        )
    if route.condition is Condition.MATCH and given is Absent.ABSENT:
        raise ApiError.field(
            "If-None-Match",
            "This request is about an existing object; omit this header.",
            _MALFORMED,
        )


async def _conditional(
    exchange: Exchange[Any, Any], route: Route[Any, Any], method: str, response: Response
) -> Response:
    """The answer to a GET with its ETag, coded as the client likes it, or 304 if the client has it
    already."""
    if method not in ("GET", "HEAD") or response.status != 200 or not response.body:
        return response
    etag = response.headers.setdefault("etag", entity_tag("", response.body))
    negotiated = is_compressible(response) and not route.holds_secrets
    coded = negotiated and len(response.body) >= MIN_BYTES and accepts_gzip(exchange.headers)
    if coded:
        response.headers["etag"] = etag = coded_tag(etag)
    answer = exchange.not_modified(etag) or response
    if answer is not response and exchange.event_id:
        answer.headers[EVENT_ID_HEADER] = exchange.event_id
    if negotiated:
        answer.headers["vary"] = ", ".join(filter(None, (answer.headers.get("vary"), _CODINGS)))
    if coded and answer is response:
        await compress(response)
    return answer


def _settle(
    error: ApiError | MicaError, exchange: Exchange[Any, Any], route: Route[Any, Any]
) -> ApiError:
    """A failure in the terms of the request that it answers."""
    if isinstance(error, MicaError):
        error = api_error(error.problem)
    if error.code is ErrorCode.FORBIDDEN:
        exchange.linger_s = LINGER_S
    if error.code is ErrorCode.ALREADY_EXISTS and exchange.precondition is Absent.ABSENT:
        # A failed `If-None-Match: *` is a failed precondition (RFC 9110 section 13.1.2).
        error.status = 412
    if route.body_kind not in (BodyKind.JSON, BodyKind.MERGE_PATCH):
        return _without_body(error, route)
    return error


def _without_body(error: ApiError, route: Route[Any, Any]) -> ApiError:
    """The vmkernel points into a body; here the value was a parameter or a header."""
    named = dict(route.pointers)
    named |= {f"/spec/{name}": name for name in route.query.__struct_fields__}
    named |= {f"/{name}": name for name in route.query.__struct_fields__}
    for pointer, name in named.items():
        if error.detail.startswith(f"{pointer}: "):
            error.detail = f"{name}: {error.detail.removeprefix(f'{pointer}: ')}"
    error.errors = tuple(
        msgspec.structs.replace(each, pointer=named.get(each.pointer, each.pointer))
        for each in error.errors
    )
    return error


async def _hold_answer(exchange: Exchange[Any, Any], response: Response) -> None:
    """A large answer waits here for its reader, so that of these each user has a share."""
    if len(response.body) > _PART_BYTES and exchange.token is not None:
        try:
            await exchange.hold(exchange.state.shares.answers, weight=len(response.body))
        except BaseException:
            response.body = b""
            raise


async def _send(
    exchange: Exchange[Any, Any], response: Response, send: Send, *, head: bool
) -> None:
    headers = encoded_headers(response, exchange.request_id)
    if not _this_machine(exchange.headers):
        headers.append(_STRICT_TRANSPORT)
    linger = exchange.unread_body
    if linger or b"expect" in exchange.headers:
        headers.append((b"connection", b"close"))
    if response.stream is not None:
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        try:
            # What is streamed may keep others waiting (a volume that is read can't be opened), so
            # that a client that takes nothing is left.
            async with aclosing(response.stream) as parts:
                async for part in parts:
                    async with asyncio.timeout(_READER_STALL_S):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
        except (BrokenStreamError, TimeoutError) as error:
            logger.info("request %s: its answer ends early: %s", exchange.request_id, error)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if response.status not in (204, 304) and "content-length" not in response.headers:
        headers.append((b"content-length", str(len(response.body)).encode("ascii")))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = memoryview(b"" if head else response.body)
    # In parts, each of which waits until the client has taken enough of those before.
    while len(body) > _PART_BYTES:
        await send(
            {"type": "http.response.body", "body": bytes(body[:_PART_BYTES]), "more_body": True}
        )
        body = body[_PART_BYTES:]
    await send({"type": "http.response.body", "body": bytes(body), "more_body": linger})
    if linger:
        await exchange.drain()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
