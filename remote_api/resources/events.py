"""The event stream: server-sent events that go on after `Last-Event-ID`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack

import msgspec

from remote_api.http.exchange import Exchange, Response
from remote_api.http.routing import AnyRoute, NoBody, Reply, Route
from remote_api.schema import ApiError, HttpCode, NoQuery
from vmkernel.control.requests import SubscribeEvents
from vmkernel.model import ErrorCode, Event, MicaError

__all__ = ["ROUTES", "TAGS"]

logger = logging.getLogger("mica.api")

HEARTBEAT_S = 15.0
_MAX_EVENT_ID = 128


async def stream_events(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Every event from now on, or after the one named by `Last-Event-ID`."""
    await exchange.hold(exchange.state.shares.events)
    stack = AsyncExitStack()
    after = _last_event_id(exchange)
    try:
        events = await stack.enter_async_context(exchange.events(SubscribeEvents(after=after)))
    except MicaError as error:
        if error.problem.code is ErrorCode.INVALID:
            raise _no_event_id() from error
        raise
    return Response(
        status=200,
        media_type="text/event-stream",
        stream=_frames(exchange, events, stack),
    )


async def _frames(
    exchange: Exchange[NoQuery, NoBody], events: AsyncIterator[Event], stack: AsyncExitStack
) -> AsyncGenerator[bytes, None]:
    async def following() -> Event | None:
        return await anext(events, None)

    gone = asyncio.create_task(exchange.gone())
    closing = asyncio.create_task(exchange.state.closing.wait())
    upcoming = asyncio.create_task(following())
    try:
        # Comments are no events of their own: some clients take each empty line for the end of one.
        yield b": mica events\n"
        retry = b"retry: 2000\n"
        while True:
            done, _ = await asyncio.wait(
                {gone, closing, upcoming},
                timeout=HEARTBEAT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if gone in done or closing in done:
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
        for task in (gone, closing, upcoming):
            task.cancel()
        await asyncio.gather(gone, closing, upcoming, return_exceptions=True)
        await stack.aclose()


def _frame(event: Event) -> bytes:
    data = msgspec.json.encode(event)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        _line(event.id),
        _line(event.type),
        data,
    )


def _line(text: str) -> bytes:
    return text.replace("\n", " ").replace("\r", " ").encode("utf-8")


def _last_event_id(exchange: Exchange[NoQuery, NoBody]) -> str | None:
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
        details="A client that reconnects with the last ID that it has seen misses nothing.",
        handler=stream_events,
        request_headers={"Last-Event-ID": "The id of the last event that the client has seen."},
        replies=(
            Reply(
                status=200,
                description="A stream of events; each `data` is an Event. It begins with what"
                " follows `Last-Event-ID`, or with `events.lost` if that is too old.",
                body=str,
                media_type="text/event-stream",
            ),
        ),
    ),
)
