"""What the VM side needs from the rest of the vmkernel: only protocols.

Operations     runs and records work that outlasts its request
Events         publishes events
               (and `Storage`, see vmkernel/storage/ports.py)

All methods are called on the event loop. Those that aren't `async` answer from memory and don't
block, so that "check, then change" needs no lock if no `await` is between the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Protocol

from vmkernel.model import (
    Operation,
    Progress,
    Record,
    Subject,
)

__all__ = [
    "EventData",
    "Events",
    "OperationHandle",
    "Operations",
    "Work",
]

EventData = Mapping[str, str | int | float | bool | None]


class OperationHandle(Protocol):
    """What work under way may do with its own operation."""

    def progress(self, progress: Progress) -> None:
        """Report the progress of the work."""
        ...

    def nothing_to_do(self) -> None:
        """Say that all is as the work would make it."""
        ...


Work = Callable[[OperationHandle], Awaitable[None]]
"""The body of an operation: returning is success, MicaError is the failure that is recorded."""


class Operations(Protocol):
    """Runs work in tasks that it owns."""

    def running(self, subject: Subject) -> list[Operation]:
        """The unfinished operations about one object."""
        ...

    async def wait(self, operation_id: str, wait_s: float) -> Operation:
        """The operation once it has finished, or as it is when the time is over."""
        ...

    def begin(
        self,
        kind: str,
        subject: Subject,
        work: Work,
        *,
        actor: str,
        cancellable: bool = False,
        held: ExitStack | None = None,
    ) -> Operation:
        """Start `work` and answer with the running operation.

        Cancelling raises CancelledError inside `work`. What `held` holds is released when the work
        has ended, or at once if the operation is refused.
        """
        ...


class Events(Protocol):
    """The event bus, from the publishing side."""

    def publish(
        self,
        event_type: str,
        subject: Subject,
        *,
        message: str = "",
        data: EventData | None = None,
        actor: str | None = None,
        before: Record | None = None,
    ) -> None:
        """Publish an event; never blocks. `before` is the object as it was, if it is gone now or
        may have had other labels."""
        ...
