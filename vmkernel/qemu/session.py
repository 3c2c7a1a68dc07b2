"""A QMP session with one QEMU: one method a command, domain events out, typed failures.

The only module that imports qemu.qmp, and only once the first VM is to be spoken to: the
import costs start-up time that an idle host need not pay.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, cast

from vmkernel.qemu.domain_events import REPEATABLE, GuestEnded, QemuEvent, translate
from vmkernel.qemu.errors import QmpCommandError, QmpLostError
from vmkernel.qemu.event_watch import EventWatch

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

__all__ = ["COMMAND_TIMEOUT_S", "Qmp", "QmpSession", "RunState"]

_log = logging.getLogger(__name__)
COMMAND_TIMEOUT_S = 30.0
_EVENTS_MAX = 4096


class RunState(StrEnum):
    """What QEMU says of its own state, as far as it matters here."""

    PRELAUNCH = "prelaunch"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    GUEST_PANICKED = "guest-panicked"
    WATCHDOG = "watchdog"
    """A watchdog that was not fed let it stand still."""
    IN_MIGRATE = "inmigrate"
    """Waits for a state to be loaded, or loads it."""
    FINISH_MIGRATE = "finish-migrate"
    POST_MIGRATE = "postmigrate"
    """Its state has been saved."""

    @classmethod
    def of(cls, status: str) -> RunState:
        """The nearest state for QEMU's `RunState`; whatever isn't running stands still."""
        return cls(status) if status in set(cls) else cls.PAUSED


class Qmp(Protocol):
    """What the VM driver asks of QEMU. Commands raise QmpCommandError or QmpLostError."""

    async def next_event(self) -> QemuEvent:
        """The next event; QmpLostError once the connection is gone and all were read."""
        ...

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Any:
        """Any command, for the modules of vmkernel.qemu that speak of one area."""
        ...

    def watch(self, *events: str) -> AbstractContextManager[EventWatch]:
        """Keep the QMP events of these names from now on, until the block is left."""
        ...

    async def query_status(self) -> RunState:
        """Whether the guest runs."""
        ...

    async def cont(self) -> None:
        """Let the guest run."""
        ...

    async def stop(self) -> None:
        """Let the guest stand still."""
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
        """Take what a ring buffer holds."""
        ...

    async def add_vnc_client(self, fd: int) -> None:
        """Give a connected stream socket to the VNC server; the caller keeps its own copy."""
        ...

    async def name_fd(self, fd: int, name: str) -> None:
        """Give an open descriptor to QEMU for a command that takes it by this name, once."""
        ...

    async def add_fd(self, fd: int, opaque: str = "") -> int:
        """Give an open file to QEMU, which opens it as `/dev/fdset/N`; N. The caller keeps its own
        copy; `opaque` is what `query-fdsets` shows of it."""
        ...

    async def remove_fd(self, fdset: int) -> None:
        """Take a descriptor set back; QEMU keeps it for as long as it has it open."""
        ...

    async def close(self) -> None:
        """Leave; QEMU runs on."""
        ...


class QmpSession:
    """A Qmp on a connected Unix socket."""

    def __init__(self, client: QMPClient, name: str) -> None:
        self._client = client
        self._name = name
        self._events: asyncio.Queue[QemuEvent | None] = asyncio.Queue()
        self._last: QemuEvent | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._vnc_clients = 0
        self._fd_lock = asyncio.Lock()
        self._watches: list[EventWatch] = []

    @classmethod
    async def open(cls, sock: socket.socket, name: str, *, timeout_s: float) -> QmpSession:
        """Greet the QEMU behind a connected socket, which is taken over.

        The socket may be connected before QEMU has started: the greeting is awaited. Raises
        TimeoutError or QmpLostError where none comes.
        """
        from qemu.qmp import ConnectError, EventListener, QMPClient

        # qemu.qmp logs refused commands and lost connections as errors; here they are answers.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        client = QMPClient(name)
        session = cls(client, name)
        client.register_listener(EventListener(event_filter=session._take_event))
        sock.setblocking(False)
        try:
            async with asyncio.timeout(timeout_s):
                await client.connect(sock)
        except ConnectError as error:
            sock.close()
            raise QmpLostError(f"QEMU of {name} did not greet: {error}") from error
        except BaseException:
            sock.close()
            raise
        session._watcher = asyncio.create_task(session._watch(), name=f"qmp-watch-{name}")
        return session

    async def next_event(self) -> QemuEvent:
        """See Qmp."""
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise QmpLostError(f"QEMU of {self._name} is gone.")
        return event

    async def query_status(self) -> RunState:
        """See Qmp."""
        answer = cast(dict[str, Any], await self.execute("query-status"))
        return RunState.of(str(answer["status"]))

    async def cont(self) -> None:
        """See Qmp."""
        await self.execute("cont")

    async def stop(self) -> None:
        """See Qmp."""
        await self.execute("stop")

    async def system_powerdown(self) -> None:
        """See Qmp."""
        await self.execute("system_powerdown")

    async def system_reset(self) -> None:
        """See Qmp."""
        await self.execute("system_reset")

    async def quit(self) -> None:
        """See Qmp."""
        await self.execute("quit")

    async def ringbuf_read(self, device: str, size: int) -> bytes:
        """See Qmp."""
        answer = await self.execute(
            "ringbuf-read", {"device": device, "size": size, "format": "base64"}
        )
        return base64.b64decode(cast(str, answer))

    async def add_vnc_client(self, fd: int) -> None:
        """See Qmp."""
        self._vnc_clients += 1
        name = f"vnc{self._vnc_clients}"
        await self._execute_with_fd(fd, "getfd", {"fdname": name})
        await self.execute("add_client", {"protocol": "vnc", "fdname": name})

    async def name_fd(self, fd: int, name: str) -> None:
        """See Qmp."""
        await self._execute_with_fd(fd, "getfd", {"fdname": name})

    async def add_fd(self, fd: int, opaque: str = "") -> int:
        """See Qmp."""
        answer = await self._execute_with_fd(fd, "add-fd", {"opaque": opaque} if opaque else {})
        return int(cast(dict[str, Any], answer)["fdset-id"])

    async def remove_fd(self, fdset: int) -> None:
        """See Qmp."""
        await self.execute("remove-fd", {"fdset-id": fdset})

    async def _execute_with_fd(self, fd: int, command: str, arguments: Mapping[str, Any]) -> Any:
        """A command that takes the descriptor sent before it; QEMU keeps one at a time."""
        from qemu.qmp import QMPError

        async with self._fd_lock:
            try:
                self._client.send_fd_scm(fd)
            except (OSError, QMPError) as error:
                raise QmpLostError(f"QEMU of {self._name} is gone: {error}") from error
            return await self.execute(command, arguments)

    async def close(self) -> None:
        """See Qmp."""
        self._closing.set()
        if self._watcher is not None:
            await self._watcher

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Any:
        """See Qmp."""
        from qemu.qmp import ExecInterruptedError, ExecuteError, StateError

        try:
            async with asyncio.timeout(timeout_s):
                return await self._client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as error:
            raise QmpCommandError(f"QEMU of {self._name} refused {command}: {error}") from error
        except (ExecInterruptedError, StateError) as error:
            raise QmpLostError(f"QEMU of {self._name} is gone: {error}") from error
        except TimeoutError as error:
            raise QmpLostError(
                f"QEMU of {self._name} did not answer {command} within {timeout_s:g} s"
            ) from error

    @contextlib.contextmanager
    def watch(self, *events: str) -> Iterator[EventWatch]:
        """See Qmp."""
        watch = EventWatch(self._name, frozenset(events))
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    def _take_event(self, message: Mapping[str, Any]) -> bool:
        """Called for each QMP event in order; the listener itself never keeps any."""
        for watch in self._watches:
            watch.offer(message)
        event = translate(message)
        if event is not None:
            if isinstance(event, REPEATABLE) and event == self._last and self._events.qsize():
                return False  # a guest may say it as often as it likes
            self._last = event
            # The end is never dropped: without it, an end in order looks like a crash.
            if self._events.qsize() < _EVENTS_MAX or isinstance(event, GuestEnded):
                self._events.put_nowait(event)
            else:
                _log.warning("%s: an event is dropped, QEMU sends too many", self._name)
        return False

    async def _watch(self) -> None:
        """Notice the end of the connection, or bring it about; the only one who disconnects."""
        from qemu.qmp import QMPError, Runstate

        closing = asyncio.create_task(self._closing.wait())
        while self._client.runstate is Runstate.RUNNING and not closing.done():
            changed = asyncio.create_task(self._client.runstate_changed())
            await asyncio.wait((changed, closing), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        closing.cancel()
        with contextlib.suppress(OSError, EOFError, QMPError):
            await self._client.disconnect()
        self._events.put_nowait(None)
        for watch in self._watches:
            watch.offer(None)
