"""The messages in the queue of a VM's owner task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vmkernel.model import Progress
from vmkernel.qemu import QemuEvent, Qmp, QmpLostError
from vmkernel.vm.states import VmRequest
from vmkernel.vm.store.definition import VmDefinition

__all__ = [
    "Change",
    "DatastoreChanged",
    "Message",
    "PendingRequest",
    "QemuEventMessage",
    "Reconnect",
    "Timer",
    "TimerFired",
    "WaiterGone",
    "fail",
    "forward",
]

_SAID_MAX = 8
"""Reports of one QEMU in the queue. While the owner task is in long work, further ones wait in the
session, which keeps few of them and the same one only once."""

Change = Callable[[VmDefinition], VmDefinition]
"""Makes the new definition from the present one; may raise MicaError."""


@dataclass(eq=False)
class PendingRequest:
    """A request, and where its answer goes."""

    request: VmRequest
    done: asyncio.Future[Any]
    deadline: float = 0.0
    """Of a shutdown, on the event loop's clock."""
    change: Change | None = None
    """Of requests that change the definition."""
    work: Callable[[], Awaitable[Any]] | None = None
    """The work of a request that another part executes inside the owner task."""
    on_progress: Callable[[Progress], None] | None = None
    """Called with the progress of a long one."""
    interrupts: bool = False
    """True if long work was cancelled for it."""


@dataclass(frozen=True)
class QemuEventMessage:
    session: int
    event: QemuEvent | None
    """None: the connection is gone."""
    taken: Callable[[], object] = lambda: None
    """Called once it is read: there is room for another."""


@dataclass(frozen=True)
class Reconnect:
    """Time to try to connect to QEMU again."""

    session: int


@dataclass(frozen=True)
class WaiterGone:
    """A waiter has gone away: look at the waiters."""


class Timer(StrEnum):
    """The kinds of timers."""

    RESTART = "restart"
    """Start the VM again, as its restart policy wants."""
    SPACE = "space"
    """Look whether its datastore has room again."""
    POWER_BUTTON = "power-button"
    """Press the guest's power button again."""
    POLL = "poll"
    """Check QEMU's state again; the number is the session's."""


@dataclass(frozen=True)
class TimerFired:
    """A timer has fired; it is out of date if its number isn't the present one."""

    timer: Timer
    number: int


@dataclass(frozen=True)
class DatastoreChanged:
    """A datastore that the VM needs went away, or is there again."""

    datastore: str
    available: bool


Message = PendingRequest | QemuEventMessage | Reconnect | WaiterGone | TimerFired | DatastoreChanged


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Answer with a failure, if there is no answer yet."""
    if not future.done():
        future.set_exception(error)


async def forward(qmp: Qmp, session: int, post: Callable[[Message], None]) -> None:
    """Put what QEMU reports into the queue until it is gone."""
    room = asyncio.Semaphore(_SAID_MAX)
    with contextlib.suppress(QmpLostError):
        while True:
            event = await qmp.next_event()
            await room.acquire()
            post(QemuEventMessage(session, event, room.release))
    post(QemuEventMessage(session, None))
