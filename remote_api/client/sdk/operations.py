"""Operations and events."""

from __future__ import annotations

import time
from collections.abc import Iterator

from remote_api.client.errors import UnreachableError
from remote_api.client.http.reading import read
from remote_api.client.sdk.base import POLL_S, Calls
from remote_api.schema import (
    PageOf,
)
from vmkernel.model import Event, Operation

__all__ = ["OperationCalls"]

_EVENTS_IDLE_S = 45.0


class OperationCalls(Calls):
    """Operations and events."""

    def operations(self) -> Iterator[Operation]:
        """Running and recent operations."""
        return self._all("/v1/operations", PageOf[Operation])

    def cancel(self, operation_id: str) -> Operation:
        """Cancel an operation."""
        path = f"/v1/operations/{operation_id}/cancel"
        return self.transport.send("POST", path).read(Operation)

    def events(self, after: str | None = None, *, reconnect: bool = True) -> Iterator[Event]:
        """Events from now on, or after one; reconnects if the connection breaks."""
        while True:
            headers = {"accept": "text/event-stream"}
            if after is not None:
                headers["last-event-id"] = after
            try:
                with self.transport.stream(
                    "/v1/events", headers=headers, idle_timeout_s=_EVENTS_IDLE_S
                ) as lines:
                    for line in lines:
                        if line.startswith("data:"):
                            event = read(line[5:].strip().encode("utf-8"), Event)
                            after = event.id
                            yield event
            except UnreachableError:
                if not reconnect:
                    raise
            if not reconnect:
                return
            time.sleep(POLL_S)
