"""The event stream: server-sent events, continuing after `Last-Event-ID`, and tickets for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET

from remote_api.auth.event_tickets import EVENT_TICKET_LIFE_S, FIRST_USE_S, OpenedStream
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.routing import AnyRoute, NoBody, Reply, Route
from remote_api.schema import ApiError, EventsQuery, EventTicket, HttpCode, NoQuery
from vmkernel.control.requests import SubscribeEvents, WhoAmI
from vmkernel.model import EVENT_TYPES, ErrorCode, Event, MicaError

__all__ = ["ROUTES", "TAGS"]

logger = logging.getLogger("mica.api")

HEARTBEAT_S = 15.0
_MAX_EVENT_ID = 128


async def stream_events(exchange: Exchange[EventsQuery, NoBody]) -> Response:
    """Every event from now on, or after one."""
    query = exchange.query
    opened: OpenedStream | None = None
    await exchange.hold(exchange.state.shares.events)
    stack = AsyncExitStack()
    if query.ticket is not UNSET and b"authorization" not in exchange.headers:
        opened = exchange.state.event_tickets.open(query.ticket)
        stack.callback(exchange.state.event_tickets.close, query.ticket, opened)
    # A reconnecting EventSource repeats the query and adds the header, which is newer.
    last_seen = _last_event_id(exchange)
    begin = None if query.after is UNSET else query.after
    request = SubscribeEvents(
        after=last_seen or begin,
        gapless=last_seen is None,
        types=query.type,
        subjects=query.subject,
        labels=query.label,
    )
    try:
        events = await stack.enter_async_context(exchange.events(request))
    except MicaError as error:
        await stack.aclose()
        about_after = any(each.pointer == "after" for each in error.problem.fields)
        if last_seen is not None and about_after:
            raise _no_event_id() from error
        raise
    except BaseException:
        await stack.aclose()
        raise
    return Response(
        status=200,
        media_type="text/event-stream",
        stream=_frames(exchange, events, stack, opened),
    )


async def issue_ticket(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """A ticket for event streams in the name of this token."""
    await exchange.call(WhoAmI())
    release = exchange.state.shares.event_tickets.take(exchange.user, exchange.origin)
    ticket = exchange.state.event_tickets.issue(exchange.token, release)
    return json_response(
        EventTicket(
            ticket=ticket,
            events=f"/v1/events?ticket={ticket}",
            expires_at=_in(FIRST_USE_S),
            ends_at=_in(EVENT_TICKET_LIFE_S),
        ),
        status=201,
    )


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _frames(
    exchange: Exchange[EventsQuery, NoBody],
    events: AsyncIterator[Event],
    stack: AsyncExitStack,
    opened: OpenedStream | None,
) -> AsyncGenerator[bytes, None]:
    async def following() -> Event | None:
        return await anext(events, None)

    gone = asyncio.create_task(exchange.gone())
    ended = asyncio.create_task(_ended(exchange.state.closing, opened))
    upcoming = asyncio.create_task(following())
    try:
        # Comments are no events of their own: some clients take each empty line for the end of one.
        yield b": mica events\n"
        retry = b"retry: 2000\n"
        while True:
            done, _ = await asyncio.wait(
                {gone, ended, upcoming},
                timeout=HEARTBEAT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if gone in done or ended in done:
                return
            if not done:
                yield b": heartbeat\n"
                continue
            event = upcoming.result()
            if event is None:
                return
            yield retry + _frame(event)
            retry = b""
            upcoming = asyncio.create_task(following())
    except MicaError as error:
        # The client comes back by itself, with Last-Event-ID.
        logger.info("an event stream ended: %s", error)
    finally:
        for task in (gone, ended, upcoming):
            task.cancel()
        await asyncio.gather(gone, ended, upcoming, return_exceptions=True)
        await stack.aclose()


async def _ended(closing: asyncio.Event, opened: OpenedStream | None) -> None:
    """Return once the process ends its streams, or the stream's ticket is void."""
    waits = [asyncio.create_task(closing.wait())]
    if opened is not None:
        waits.append(asyncio.create_task(opened.ended.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()


def _frame(event: Event) -> bytes:
    data = msgspec.json.encode(event)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        _line(event.id),
        _line(event.type),
        data,
    )


def _line(text: str) -> bytes:
    return text.replace("\n", " ").replace("\r", " ").encode("utf-8")


def _last_event_id(exchange: Exchange[EventsQuery, NoBody]) -> str | None:
    values = exchange.headers.get(b"last-event-id", [])
    if not values or values == [b""]:
        return None
    if len(values) > 1 or len(values[0]) > _MAX_EVENT_ID or not values[0].isascii():
        raise _no_event_id()
    return values[0].decode("ascii")


def _no_event_id() -> ApiError:
    return ApiError.field(
        "Last-Event-ID", "This is not an event ID; reconnect without it.", HttpCode.MALFORMED
    )


TAGS = {"events": "What happened."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/events",
        name="streamEvents",
        summary="The events of this host, as server-sent events",
        details="To list and then follow without a gap, take `Mica-Event-Id` of the list's first"
        " page as `after`: what was changed since then comes, with the object as it became. A"
        " client that reconnects with the last ID that it has seen as `Last-Event-ID` misses"
        " nothing; if that is too old, the stream begins with `events.lost`. While a filter lets"
        " little pass, `events.position` brings an ID to resume from. The types of events are: "
        + "; ".join(f"`{name}`: {text}" for name, text in EVENT_TYPES.items()),
        handler=stream_events,
        query=EventsQuery,
        ticketed=True,
        request_headers={"Last-Event-ID": "The id of the last event that the client has seen."},
        replies=(
            Reply(
                status=200,
                description="A stream of events; each `data` is an Event. It begins with what"
                " follows `Last-Event-ID` or `after`.",
                body=str,
                media_type="text/event-stream",
                headers={"Mica-Event-Id": "The last event before the stream was opened."},
            ),
        ),
        problems=(ErrorCode.GONE,),
    ),
    Route(
        method="POST",
        path="/v1/events/ticket",
        name="createEventTicket",
        dry_run=False,
        summary="A ticket that opens event streams without a token in a header",
        details="For `EventSource` in browsers: open the path that the answer names within 30"
        " seconds. The browser may reconnect by itself, each time within a minute, 240 times"
        " within 12 hours; a new stream ends the one before. The ticket sees what this token may,"
        " and ends with it.",
        handler=issue_ticket,
        replies=(Reply(status=201, description="The ticket.", body=EventTicket),),
    ),
)
