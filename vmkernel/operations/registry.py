"""The operations under way and a bounded history of those that ended.

      begin()            work returns            -> succeeded
        |-> running -----work raises-------------> failed (with its problem)
                     \\---cancel() or close()-----> cancelled

What an earlier vmkernel knew is taken up from the journal: what had ended stays as it was, and what
ran when that process was killed has failed, with that as its reason.

Each operation is one task that the registry owns. Cancelling is asyncio's: the work sees
CancelledError, cleans up after itself, and only then does the operation end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

import msgspec

from vmkernel import clock, dry_run
from vmkernel.errors import to_problem
from vmkernel.events import EventBus
from vmkernel.host.work_places import Asker, asked_by
from vmkernel.model import (
    SYSTEM,
    ErrorCode,
    ErrorInfo,
    MicaError,
    Operation,
    OperationError,
    OperationState,
    Progress,
    Subject,
)
from vmkernel.operations.journal import Journal
from vmkernel.operations.places import Places

__all__ = ["OperationContext", "OperationRegistry", "Work"]

_log = logging.getLogger(__name__)
PLANNED_ID = "op-dry-run"
_CANCEL_WAIT_S = 10.0
_COUNT_MAX = (1 << 63) - 1
_INTERRUPTED = (
    "The host's management service ended while this ran: look at the object, and repeat the request"
    " if it is not as you want it."
)
_parent: ContextVar[str | None] = ContextVar("operation that begins others", default=None)
_RUNNING, _RUNNING_EACH = 1024, 256
"""At once, in all and of one token; what Mica does by itself is not counted."""


class OperationContext:
    """What the work can report about itself."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry

    @property
    def operation(self) -> Operation:
        return self._entry.operation

    def progress(self, progress: Progress) -> None:
        """Report the progress; cheap enough to call often."""
        self._entry.operation = msgspec.structs.replace(self._entry.operation, progress=progress)

    def advance(self, done: int, total: int = 0, *, stage: str = "", unit: str = "bytes") -> None:
        """The same in parts; values from programs are limited to the range of a number."""
        done, total = (min(max(0, number), _COUNT_MAX) for number in (done, total))
        rate = self._entry.pace.rate(stage, done, time.monotonic())
        remaining = None
        if rate and total:
            remaining = min(max(0, total - done) // rate, _COUNT_MAX)
        self.progress(
            Progress(
                done=done,
                total=total,
                unit=unit,
                stage=stage,
                rate_per_s=rate,
                remaining_s=remaining,
            )
        )

    def nothing_to_do(self) -> None:
        """Say that all is as the work would make it."""
        self._entry.operation = msgspec.structs.replace(self._entry.operation, unchanged=True)

    def commit_point(self) -> None:
        """From here on the work can't be cancelled any more."""
        self._entry.operation = msgspec.structs.replace(self._entry.operation, cancellable=False)


Work = Callable[[OperationContext], Awaitable[None]]


@dataclass
class _Pace:
    """How fast the present stage is."""

    stage: str | None = None
    since_s: float = 0.0
    done: int = 0

    def rate(self, stage: str, done: int, now_s: float) -> int | None:
        """Units a second since the stage began; None in its first second, which says little."""
        if stage != self.stage or done < self.done:
            self.stage, self.since_s, self.done = stage, now_s, done
        elapsed_s = now_s - self.since_s
        return min(int((done - self.done) / elapsed_s), _COUNT_MAX) if elapsed_s >= 1 else None


@dataclass
class _Entry:
    operation: Operation
    held: contextlib.ExitStack
    """Resources prepared for the work, and its place among those that run."""
    finished_monotonic_s: float | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    cancel_asked: bool = False
    pace: _Pace = field(default_factory=_Pace)


class OperationRegistry:
    """Starts, watches and remembers operations; owned by the event loop's thread."""

    def __init__(
        self,
        bus: EventBus,
        *,
        history_count: int = 1000,
        history_age_s: float = 24 * 3600,
        journal: Journal | None = None,
    ) -> None:
        self._bus = bus
        self._history_count = history_count
        self._history_age_s = history_age_s
        self._entries: dict[str, _Entry] = {}
        self._start = f"{int(time.time() * 1000):011x}"
        self._numbers = itertools.count(1)
        self._closing = False
        self._journal = journal
        self._running = Places("operations run", total=_RUNNING, each=_RUNNING_EACH)

    def load(self) -> None:
        """Take up what an earlier process knew; events tell of what it left unfinished."""
        if self._journal is None:
            return
        now_s, monotonic_s = time.time(), time.monotonic()
        broken: list[_Entry] = []
        for operation in self._journal.load():
            entry = _Entry(operation, contextlib.ExitStack(), finished_monotonic_s=monotonic_s)
            entry.done.set()
            self._entries[operation.id] = entry
            if operation.state.finished:
                age_s = now_s - clock.parse_time(operation.finished_at or operation.created_at)
                entry.finished_monotonic_s = monotonic_s - max(0.0, age_s)
                continue
            error = ErrorInfo(code=ErrorCode.INTERRUPTED, detail=_INTERRUPTED)
            entry.operation = msgspec.structs.replace(
                operation,
                state=OperationState.FAILED,
                cancellable=False,
                finished_at=clock.now(),
                error=OperationError.of(error),
            )
            broken.append(entry)
        self._forget()
        self._journal.replace(self._known())
        for entry in broken:
            self._publish("operation.finished", entry)

    def _known(self) -> list[Operation]:
        return [entry.operation for entry in self._entries.values()]

    def _note(self, entry: _Entry) -> None:
        if self._journal is None:
            return
        if self._journal.is_long:
            self._journal.replace(self._known())
        else:
            self._journal.note(entry.operation)

    def begin(
        self,
        kind: str,
        subject: Subject,
        work: Work,
        *,
        actor: str,
        cancellable: bool = False,
        held: contextlib.ExitStack | None = None,
    ) -> Operation:
        """Start `work` in a new task and return at once.

        From now on `held` belongs to the operation: it is released when the work has ended, or now
        if the operation is refused. A dry run ends here.
        """
        with contextlib.ExitStack() as refused:
            if held is not None:
                refused.push(held.pop_all())
            if self._closing:
                raise MicaError(
                    ErrorCode.UNAVAILABLE, "The vmkernel is shutting down; retry in a moment."
                )
            dry_run.ending(_planned(kind, subject, actor, cancellable=cancellable))
            if actor != SYSTEM:
                refused.callback(self._running.take(actor))
            mine = refused.pop_all()
        entry = _Entry(
            Operation(
                id=f"op-{self._start}-{next(self._numbers):08x}",
                kind=kind,
                subject=subject,
                state=OperationState.RUNNING,
                progress=Progress(),
                cancellable=cancellable,
                actor=actor,
                created_at=clock.now(),
                parent=_parent.get(),
            ),
            held=mine,
        )
        self._entries[entry.operation.id] = entry
        self._note(entry)
        self._publish("operation.started", entry)
        entry.task = asyncio.create_task(self._run(entry, work), name=entry.operation.id)
        entry.task.add_done_callback(lambda _: self._ensure_finished(entry))
        self._forget()
        return entry.operation

    @property
    def closing(self) -> bool:
        """True once everything is being ended: what can be taken up again is to be kept."""
        return self._closing

    def get(self, operation_id: str) -> Operation:
        return self._entry(operation_id).operation

    async def wait(self, operation_id: str, wait_s: float) -> Operation:
        """The operation once it has finished, or as it is when the time is over."""
        entry = self._entry(operation_id)
        if wait_s > 0 and not entry.done.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await entry.done.wait()
            except TimeoutError:
                pass
        return entry.operation

    def all(self) -> list[Operation]:
        """All known operations, oldest first."""
        self._forget()
        return [entry.operation for entry in self._entries.values()]

    def running(self, subject: Subject) -> list[Operation]:
        """The unfinished operations about one object."""
        return [
            entry.operation
            for entry in self._entries.values()
            if entry.operation.subject == subject and not entry.operation.state.finished
        ]

    async def cancel(self, operation_id: str, actor: str) -> Operation:
        """Cancel an operation, and wait a little for its clean-up."""
        entry = self._entry(operation_id)
        operation = entry.operation
        if operation.state.finished:
            return operation
        if not operation.cancellable:
            raise MicaError(
                ErrorCode.CONFLICT, f"Operation {operation_id} can't be cancelled any more."
            )
        assert entry.task is not None
        if not entry.cancel_asked:
            entry.cancel_asked = True
            self._publish("operation.cancelling", entry, actor=actor)
            await asyncio.sleep(0)  # work that has begun can clean up
            entry.task.cancel()
        return await self.wait(operation_id, _CANCEL_WAIT_S)

    async def close(self) -> None:
        """Cancel what runs and wait for all of it; nothing can be started afterwards."""
        self._closing = True
        await asyncio.sleep(0)
        tasks = [e.task for e in self._entries.values() if e.task and not e.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, entry: _Entry, work: Work) -> None:
        context = OperationContext(entry)
        _parent.set(entry.operation.id)
        asked_by.set(
            Asker(entry.operation.actor, lambda: context.advance(0, stage="waiting for a place"))
        )
        try:
            with entry.held:
                await work(context)
        except asyncio.CancelledError:
            self._finish(entry, OperationState.CANCELLED)
        except Exception as error:
            self._finish(
                entry,
                OperationState.FAILED,
                to_problem(error, f"operation {entry.operation.id} ({entry.operation.kind})"),
            )
        else:
            self._finish(entry, OperationState.SUCCEEDED)

    def _ensure_finished(self, entry: _Entry) -> None:
        """A task that is cancelled before its first step never runs `_run`."""
        entry.held.close()
        if not entry.done.is_set():
            self._finish(entry, OperationState.CANCELLED)

    def _finish(self, entry: _Entry, state: OperationState, error: ErrorInfo | None = None) -> None:
        entry.operation = msgspec.structs.replace(
            entry.operation,
            state=state,
            cancellable=False,
            finished_at=clock.now(),
            error=OperationError.of(error) if error else None,
            progress=msgspec.structs.replace(entry.operation.progress, remaining_s=None),
        )
        entry.finished_monotonic_s = time.monotonic()
        self._note(entry)
        entry.done.set()
        operation = entry.operation
        _log.info(
            "%s %s/%s by %s: %s%s",
            operation.kind,
            operation.subject.kind,
            operation.subject.id,
            operation.actor,
            state,
            f": {error.detail}" if error else "",
        )
        self._publish("operation.finished", entry)

    def _publish(self, event_type: str, entry: _Entry, actor: str | None = None) -> None:
        operation = entry.operation
        self._bus.publish(
            event_type,
            Subject(kind="operation", id=operation.id),
            actor=actor or operation.actor,
            message=operation.error.detail if operation.error else "",
            data={
                "kind": operation.kind,
                "subject_kind": operation.subject.kind,
                "subject_id": operation.subject.id,
                "state": operation.state.value,
                "error": operation.error.code.value if operation.error else None,
            },
        )

    def _entry(self, operation_id: str) -> _Entry:
        self._forget()
        entry = self._entries.get(operation_id)
        if entry is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no operation {operation_id[:80]!r}.")
        return entry

    def _forget(self) -> None:
        """Drop finished operations that are too old or too many.

        Too many means: the oldest of the actor who has most of them, so that no user can push out
        another's.
        """
        limit = time.monotonic() - self._history_age_s
        finished: dict[str, deque[str]] = {}
        count = 0
        for key, entry in list(self._entries.items()):
            if entry.finished_monotonic_s is None:
                continue
            if entry.finished_monotonic_s < limit:
                del self._entries[key]
                continue
            finished.setdefault(entry.operation.actor, deque()).append(key)
            count += 1
        while count > self._history_count:
            most = max(finished.values(), key=len)
            del self._entries[most.popleft()]
            count -= 1


def _planned(kind: str, subject: Subject, actor: str, *, cancellable: bool) -> Operation:
    """What a dry run answers instead of an operation."""
    now = clock.now()
    return Operation(
        id=PLANNED_ID,
        kind=kind,
        subject=subject,
        state=OperationState.PLANNED,
        progress=Progress(),
        cancellable=cancellable,
        actor=actor,
        created_at=now,
        finished_at=now,
    )
