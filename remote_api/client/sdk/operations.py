"""Operations and events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Unpack

from remote_api.client.errors import UnreachableError
from remote_api.client.http.reading import read
from remote_api.client.sdk.base import POLL_S, Calls
from remote_api.client.sdk.queries import OperationListQuery
from remote_api.schema import EventTicket, PageOf
from vmkernel.model import Event, Operation

__all__ = ["OperationCalls"]

_EVENTS_IDLE_S = 45.0


class OperationCalls(Calls):
    """Operations and events."""

    def operations(self, **query: Unpack[OperationListQuery]) -> Iterator[Operation]:
        """Running and recent operations."""
        return self._all("/v1/operations", PageOf[Operation], query)

    def cancel(self, operation_id: str) -> Operation:
        """Cancel an operation."""
        path = f"/v1/operations/{operation_id}/cancel"
        return self.transport.send("POST", path).read(Operation)

    def event_position(self) -> str:
        """The last event until now. List objects after this call, then follow `events` from here:
        nothing is missed."""
        answer = self.transport.send("GET", "/v1/whoami")
        return answer.event_id or ""

    def events(
        self,
        after: str | None = None,
        *,
        types: Iterable[str] = (),
        subjects: Iterable[str] = (),
        labels: Iterable[str] = (),
        reconnect: bool = True,
    ) -> Iterator[Event]:
        """Events from now on, or after one; reconnects if the connection breaks.

        The filters are those of the API: `vm.*`, `vm/web`, `env=prod`. Raises RefusedError (410) if
        what follows `after` is no longer known: list the objects again.
        """
        wanted = [
            *(("type", text) for text in types),
            *(("subject", text) for text in subjects),
            *(("label", text) for text in labels),
        ]
        last_seen: str | None = None
        while True:
            headers = {"accept": "text/event-stream"}
            parameters = list(wanted)
            if last_seen is not None:
                headers["last-event-id"] = last_seen
            elif after is not None:
                parameters.append(("after", after))
            try:
                with self.transport.stream(
                    "/v1/events",
                    headers=headers,
                    idle_timeout_s=_EVENTS_IDLE_S,
                    parameters=parameters,
                ) as answer:
                    last_seen = last_seen or after or answer.event_id
                    for line in answer.lines:
                        if line.startswith("data:"):
                            event = read(line[5:].strip().encode("utf-8"), Event)
                            last_seen = event.id
                            if event.type != "events.position":
                                yield event
            except UnreachableError:
                if not reconnect:
                    raise
            if not reconnect:
                return
            time.sleep(POLL_S)

    def event_ticket(self) -> EventTicket:
        """What opens the event stream in a browser, which sends no token."""
        return self.transport.send("POST", "/v1/events/ticket").read(EventTicket)
