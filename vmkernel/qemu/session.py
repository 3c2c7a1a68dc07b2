"""A QMP session with one QEMU: one method per command, domain events out, typed failures."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import msgspec

from vmkernel.qemu.answers import FdsetAdded, Status, decode_answer
from vmkernel.qemu.domain_events import (
    REPEATABLE,
    GuestEnded,
    QemuEvent,
    ReportsMissed,
    WatchdogFired,
    translate,
)
from vmkernel.qemu.errors import QmpCommandError, QmpLostError, QmpNonsenseError
from vmkernel.qemu.event_watch import EventWatch
from vmkernel.qemu.link import QmpLink, QmpMessage

__all__ = ["COMMAND_TIMEOUT_S", "Qmp", "QmpSession", "RunState"]

_log = logging.getLogger(__name__)
COMMAND_TIMEOUT_S = 30.0
_EVENTS_MAX = 256
"""Events waiting for the VM's task; it handles each at once unless it is in long work."""
_RING_MAX = 1 << 20

Answer = TypeVar("Answer")


class RunState(StrEnum):
    """QEMU's run state, as far as it matters here."""

    PRELAUNCH = "prelaunch"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    GUEST_PANICKED = "guest-panicked"
    WATCHDOG = "watchdog"
    """Stopped by its watchdog."""
    IN_MIGRATE = "inmigrate"
    """Waits for a state to be loaded, or loads it."""
    FINISH_MIGRATE = "finish-migrate"
    POST_MIGRATE = "postmigrate"
    """Its state has been saved."""

    @classmethod
    def of(cls, status: str) -> RunState:
        """The nearest state for QEMU's `RunState`; anything that isn't running counts as paused."""
        return cls(status) if status in set(cls) else cls.PAUSED


class Qmp(Protocol):
    """The VM driver's interface to QEMU. Commands raise QmpCommandError or QmpLostError."""

    async def next_event(self) -> QemuEvent:
        """The next event; QmpLostError once the connection has ended and all events were read."""
        ...

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        """Any command without a result."""
        ...

    async def ask(
        self,
        command: str,
        answer: type[Answer],
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Answer:
        """Any command, and its answer as a record of answers.py; QmpNonsenseError if it doesn't
        fit.
        """
        ...

    def watch(self, *events: str) -> AbstractContextManager[EventWatch]:
        """Collect the QMP events of these names from now on, until the block ends."""
        ...

    async def query_status(self) -> RunState: ...

    async def cont(self) -> None: ...

    async def stop(self) -> None:
        """Pause the guest."""
        ...

    async def system_powerdown(self) -> None:
        """Press the guest's power button (ACPI)."""
        ...

    async def system_reset(self) -> None:
        """Press the guest's reset button."""
        ...

    async def quit(self) -> None:
        """End QEMU at once."""
        ...

    async def ringbuf_read(self, device: str, size: int) -> bytes:
        """Take the content of a ring buffer."""
        ...

    async def add_vnc_client(self, fd: int) -> None:
        """Give a connected stream socket to the VNC server; the caller keeps its copy."""
        ...

    async def name_fd(self, fd: int, name: str) -> None:
        """Give an open descriptor to QEMU for a command that uses it by this name, once."""
        ...

    async def add_fd(self, fd: int, opaque: str = "") -> int:
        """Give an open file to QEMU, which opens it as `/dev/fdset/N`; returns N. The caller keeps
        its copy; `opaque` is shown by `query-fdsets`.
        """
        ...

    async def remove_fd(self, fdset: int) -> None:
        """Remove a descriptor set; QEMU keeps it while it has it open."""
        ...

    async def close(self) -> None:
        """Disconnect; QEMU continues."""
        ...


class QmpSession:
    """A Qmp on a connected Unix socket."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._name = name
        self._events: asyncio.Queue[QemuEvent | None] = asyncio.Queue()
        self._waiting: set[QemuEvent] = set()
        """Events that need not be queued again if repeated, because they are in the queue."""
        self._last_words: set[type[QemuEvent]] = set()
        self._warned = False
        self._watches: list[EventWatch] = []
        self._vnc_clients = 0
        self._fd_lock = asyncio.Lock()
        self._link = QmpLink(sock, name, self._take_event)
        self._watcher = asyncio.create_task(self._watch(), name=f"qmp-watch-{name}")

    @classmethod
    async def open(cls, sock: socket.socket, name: str, *, timeout_s: float) -> QmpSession:
        """Greet the QEMU behind a connected socket, which the session then owns.

        The socket may be connected before QEMU has started: the greeting is awaited. TimeoutError
        or QmpLostError if none arrives.
        """
        session = cls(sock, name)
        try:
            async with asyncio.timeout(timeout_s):
                await session._link.greet()
        except QmpCommandError as error:
            await session.close()
            raise QmpLostError(f"QEMU of {name} did not greet: {error}") from error
        except BaseException:
            await session.close()
            raise
        return session

    async def next_event(self) -> QemuEvent:
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise QmpLostError(f"QEMU of {self._name} is gone.")
        self._waiting.discard(event)
        return event

    async def query_status(self) -> RunState:
        return RunState.of((await self.ask("query-status", Status)).status)

    async def cont(self) -> None:
        await self.execute("cont")

    async def stop(self) -> None:
        await self.execute("stop")

    async def system_powerdown(self) -> None:
        await self.execute("system_powerdown")

    async def system_reset(self) -> None:
        await self.execute("system_reset")

    async def quit(self) -> None:
        await self.execute("quit")

    async def ringbuf_read(self, device: str, size: int) -> bytes:
        answer = await self.ask(
            "ringbuf-read", str, {"device": device, "size": size, "format": "base64"}
        )
        try:
            return base64.b64decode(answer)[-min(size, _RING_MAX) :]
        except (binascii.Error, ValueError) as error:
            raise QmpNonsenseError(f"QEMU of {self._name} sends no base64.") from error

    async def add_vnc_client(self, fd: int) -> None:
        self._vnc_clients += 1
        name = f"vnc{self._vnc_clients}"
        await self._execute("getfd", {"fdname": name}, fd=fd)
        await self.execute("add_client", {"protocol": "vnc", "fdname": name})

    async def name_fd(self, fd: int, name: str) -> None:
        await self._execute("getfd", {"fdname": name}, fd=fd)

    async def add_fd(self, fd: int, opaque: str = "") -> int:
        answer = await self._execute("add-fd", {"opaque": opaque} if opaque else {}, fd=fd)
        return decode_answer(self._name, "add-fd", answer, FdsetAdded).fdset_id

    async def remove_fd(self, fdset: int) -> None:
        await self.execute("remove-fd", {"fdset-id": fdset})

    async def close(self) -> None:
        await self._link.close()
        await self._watcher

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        await self._execute(command, arguments, timeout_s=timeout_s)

    async def ask(
        self,
        command: str,
        answer: type[Answer],
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Answer:
        raw = await self._execute(command, arguments, timeout_s=timeout_s)
        return decode_answer(self._name, command, raw, answer)

    async def _execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None,
        *,
        fd: int | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> msgspec.Raw:
        try:
            async with asyncio.timeout(timeout_s):
                if fd is None:
                    return await self._link.execute(command, arguments)
                async with self._fd_lock:  # QEMU keeps one descriptor at a time
                    return await self._link.execute(command, arguments, fd=fd)
        except QmpCommandError as error:
            raise QmpCommandError(f"QEMU of {self._name} refused {command}: {error}") from error
        except TimeoutError as error:
            raise QmpLostError(
                f"QEMU of {self._name} did not answer {command} within {timeout_s:g} s"
            ) from error

    @contextlib.contextmanager
    def watch(self, *events: str) -> Iterator[EventWatch]:
        watch = EventWatch(self._name, frozenset(events))
        if self._link.closed.is_set():
            watch.offer(None)
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    def _take_event(self, message: QmpMessage) -> bool | None:
        watched = [watch.offer(message) for watch in self._watches]
        event = translate(message)
        if event is None:
            return any(watched) or None
        if isinstance(event, REPEATABLE) and event in self._waiting:
            return any(watched) or None
        if isinstance(event, GuestEnded) or (isinstance(event, WatchdogFired) and event.ends):
            # The end is never dropped: without it, an end in order looks like a crash.
            if type(event) in self._last_words:
                return any(watched) or None
            self._last_words.add(type(event))
        elif self._events.qsize() >= _EVENTS_MAX:
            if not self._warned:
                _log.warning("%s: QEMU sends too many events; some are dropped", self._name)
            self._warned = True
            event = ReportsMissed()
            if event in self._waiting:  # whoever takes it asks after what is dropped now, too
                return any(watched) or None
        self._events.put_nowait(event)
        self._waiting.add(event)
        return True

    async def _watch(self) -> None:
        """Notify those who wait for an event that the link has ended."""
        await self._link.closed.wait()
        self._events.put_nowait(None)
        for watch in self._watches:
            watch.offer(None)
