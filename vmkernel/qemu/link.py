"""QMP on a connected Unix socket: lines of JSON in both directions (docs/interop/qmp-spec of QEMU).

    socket -> lines -> envelope -+-> event  -> on_event (synchronously, nothing is kept here)
                                 +-> answer -> the caller; an unexpected one is dropped

The QEMU at the other end may be controlled by its guest, so each message is parsed only far enough
to find its receiver: arguments and answers stay bytes until their reader decodes them into the
record that it expects. Nothing that it sends is kept but one unfinished line, and reading it takes
no more than its share of the processor (budget.py). A violation of the protocol ends the link.

qemu.qmp is not used: its client keeps each event for ever in a queue that can't be removed, and
decodes everything before it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from vmkernel.qemu.budget import READING, Budget
from vmkernel.qemu.errors import QmpCommandError, QmpLostError
from vmkernel.text import clean

__all__ = ["LINE_MAX_BYTES", "QmpLink", "QmpMessage"]

LINE_MAX_BYTES = 4 << 20
"""The longest answer (`query-named-block-nodes` of 64 disks with checkpoints) is some 1 MiB."""
_CHUNK_BYTES = 1 << 16
_RATE = 0.05
_BURST_S = 0.25
"""A busy VM's events and statistics take some milliseconds a minute."""
_HANDLING_S = 0.0005
"""The cost of handling an event, charged in advance."""
_TIMESTAMP = b'{"timestamp": {'
_DULL_MAX_BYTES = 512
_WORDS = 400


class _Error(msgspec.Struct):
    desc: Annotated[str, msgspec.Meta(max_length=1 << 16)] = ""


class _Envelope(msgspec.Struct):
    """Any message, parsed only as far as needed to find its receiver."""

    event: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")
    id: int | None = None
    answer: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="return", default=msgspec.UNSET)
    error: _Error | None = None
    greeting: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="QMP", default=msgspec.UNSET)


class QmpMessage(msgspec.Struct, frozen=True):
    """A QMP event; `data` is decoded by its receiver."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


_DECODER = msgspec.json.Decoder(_Envelope)
OnEvent = Callable[[QmpMessage], bool | None]
"""Receives an event. True: it must be handled. None: it says nothing, and would say nothing if
repeated now."""


class QmpLink:
    """One connection, which owns its socket; `closed` is set once it has ended for any reason."""

    def __init__(self, sock: socket.socket, name: str, on_event: OnEvent) -> None:
        sock.setblocking(False)
        self.closed = asyncio.Event()
        self._sock = sock
        self._name = name
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._sending = asyncio.Lock()
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._why = "it has closed its connection"
        self._dull: set[bytes] = set()
        self._budget = Budget(_RATE, _BURST_S)
        self._reader = asyncio.create_task(self._read(), name=f"qmp-{name}")

    async def greet(self) -> None:
        """Wait for QEMU's greeting and begin; QmpLostError if something else arrives."""
        await asyncio.shield(self._greeted)
        await self.execute("qmp_capabilities")

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, fd: int | None = None
    ) -> msgspec.Raw:
        """The answer to a command, undecoded; the descriptor, if any, travels with it. Raises
        QmpCommandError with QEMU's reason, or QmpLostError once the link has ended."""
        if self.closed.is_set():
            raise self._lost()
        number = next(self._numbers)
        message: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            message["arguments"] = dict(arguments)
        data = msgspec.json.encode(message) + b"\n"
        answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with self._sending:
                await self._send(data, fd)
            return await answer
        finally:
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # it has been looked at, even if the caller has gone away

    async def close(self) -> None:
        """Disconnect; QEMU continues."""
        self._end("we have left it")
        await asyncio.wait((self._reader,))

    async def _send(self, data: bytes, fd: int | None) -> None:
        """Write a line as a whole: half a line would become the beginning of the next one."""
        loop = asyncio.get_running_loop()
        try:
            if fd is not None:
                while True:
                    try:
                        data = data[socket.send_fds(self._sock, [data], [fd]) :]
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.01)  # it has not read the last command yet
            await loop.sock_sendall(self._sock, data)
        except OSError as error:
            self._end(error.strerror or str(error))
            raise self._lost() from error
        except asyncio.CancelledError:
            self._end("it takes no commands")
            raise

    # --- reading --------------------------------------------------------------------------------

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        rest = bytearray()
        try:
            while data := await loop.sock_recv(self._sock, _CHUNK_BYTES):
                began = time.thread_time()
                handled = self._take(rest, data)
                used = time.thread_time() - began + handled * _HANDLING_S
                self._budget.pay(used)
                READING.pay(used)
                wait_s = self._budget.wait_s
                if self._budget.is_half_used:
                    wait_s = max(wait_s, READING.wait_s)
                if wait_s:
                    await asyncio.sleep(wait_s)
        except OSError as error:
            self._why = error.strerror or str(error)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._why = f"it sent an invalid message ({clean(str(error), 120)})"
        except _TooLongError:
            self._why = f"it sent more than {LINE_MAX_BYTES >> 20} MiB at once"
        finally:
            self._end(self._why)
            async with self._sending:  # whoever writes still is woken by the shutdown
                self._sock.close()

    def _take(self, rest: bytearray, data: bytes) -> int:
        """Process the complete lines; returns how many must be handled."""
        self._dull.clear()
        *lines, last = data.split(b"\n")
        handled = 0
        for number, line in enumerate(lines):
            if number == 0 and rest:
                rest += line
                line = bytes(rest)
                rest.clear()
            if len(line) > LINE_MAX_BYTES:
                raise _TooLongError
            handled += self._message(line)
        rest += last
        if len(rest) > LINE_MAX_BYTES:
            raise _TooLongError
        return handled

    def _message(self, line: bytes) -> int:
        # What a guest makes QEMU say over and over differs in its timestamp only.
        said = b""
        if line.startswith(_TIMESTAMP) and len(line) <= _DULL_MAX_BYTES:
            said = line[line.find(b"}") :]
            if said in self._dull:
                return 0
        if not line.strip():
            return 0
        message = _DECODER.decode(line)
        if message.event is not None:
            verdict = self._on_event(QmpMessage(message.event, message.data))
            if verdict is None and said:
                self._dull.add(said)
            return 1 if verdict else 0
        if message.greeting is not msgspec.UNSET:
            if not self._greeted.done():
                self._greeted.set_result(None)
            return 0
        answer = self._waiting.pop(message.id, None) if message.id is not None else None
        if answer is None or answer.done():
            return 0
        if message.error is not None:
            answer.set_exception(
                QmpCommandError(clean(message.error.desc, _WORDS) or "it gives no reason")
            )
        elif message.answer is not msgspec.UNSET:
            answer.set_result(msgspec.Raw(bytes(message.answer)))  # not the whole line it lies in
        else:
            raise msgspec.ValidationError("an answer without a result")
        return 0

    def _end(self, why: str) -> None:
        if self.closed.is_set():
            return
        self._why = why
        self.closed.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if not self._greeted.done():
            self._greeted.set_exception(self._lost())
        self._greeted.exception()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(self._lost())
        if asyncio.current_task() is not self._reader:
            self._reader.cancel()

    def _lost(self) -> QmpLostError:
        return QmpLostError(f"QEMU of {self._name} is gone: {self._why}.")


class _TooLongError(Exception):
    """A line without an end."""
