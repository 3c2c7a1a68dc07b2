"""A VM's serial line: one connection to QEMU, a bounded scrollback, any number of watchers.

    QEMU --socket--> SerialConsole --+--> ring (scrollback)
         <-----------     ^          +--> watcher's queue --> socketpair --> client
                          +--------- bytes typed by the one writer -- socketpair

QEMU's socket is always read at once, so a watcher can't hold up the guest. What a watcher has not
taken is queued up to a limit; one that falls further behind is disconnected, and gets the
scrollback when it connects again.

One of the watchers is the writer: the first that asks, or types, while there is none, until it
disconnects or another takes over. Input from the others is dropped, and each is notified who
writes. The form of the messages is in vmkernel/model/console.py.

What is typed waits for the guest, and its writer with it, as long as the guest takes some of it. A
guest that takes nothing for a while is treated as a serial port without flow control would be:
further input is dropped, the writer is notified, and still gets the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.model import (
    CONTROL,
    DATA,
    MAX_CONSOLE_BYTES,
    ConsoleAsk,
    ConsoleMode,
    ConsoleNotice,
)
from vmkernel.operations.places import Places
from vmkernel.vm.guest.replay import Replay

__all__ = ["Scrollback", "SerialConsole", "merge_overlap"]

SCROLLBACK_BYTES = 256 << 10
_QUEUE_BYTES = 1 << 20
_CHUNK_BYTES = MAX_CONSOLE_BYTES - 1
_TYPED_BYTES = 1 << 16
"""How much may wait for the guest before its writer is no longer read."""
STALL_S = 10.0
"""Shorter than the API waits for a client to answer a ping (20 s): the answer comes behind what
the client has typed, and isn't read meanwhile."""
_UNSEEN_BYTES = 4096
"""How much the kernel may keep for QEMU. It has taken something, as far as can be seen, once half
of that has gone: a guest on a line of 4,800 baud does that in time."""
_NOTICE_EVERY_S = 1.0
_WATCHERS_MAX = 64
_WATCHERS_EACH = 16

OnTakeover = Callable[[str, str], None]
"""Called with the new and the former writer of the line."""

_log = logging.getLogger(__name__)


class Scrollback:
    """The last bytes of a stream."""

    def __init__(self, limit: int = SCROLLBACK_BYTES) -> None:
        self._limit = limit
        self._data = bytearray()

    def append(self, data: bytes) -> None:
        """Add to the end, dropping from the beginning."""
        self._data += data
        if len(self._data) > self._limit + self._limit // 4:
            del self._data[: -self._limit]

    def content(self) -> bytes:
        """At most `limit` bytes."""
        return bytes(self._data[-self._limit :])

    def clear(self) -> None:
        """Forget everything."""
        self._data.clear()


def merge_overlap(old: bytes, new: bytes) -> bytes:
    """`old` and `new` joined, with the longest overlap counted once.

    QEMU's ring buffer and its socket carry the same bytes; `new` arrived on the socket while the
    ring, `old`, was being read.
    """
    # Knuth, Morris, Pratt: a guest chooses these bytes, so the time must not depend on them.
    new_start = new[: len(old)]
    borders = [0] * len(new_start)
    length = 0
    for index in range(1, len(new_start)):
        while length and new_start[index] != new_start[length]:
            length = borders[length - 1]
        length += new_start[index] == new_start[length]
        borders[index] = length
    length = 0
    for octet in old[len(old) - len(new_start) :]:
        while length and (length == len(new_start) or octet != new_start[length]):
            length = borders[length - 1]
        length += bool(new_start) and octet == new_start[length]
    return old + new[length:]


class _Watcher:
    """One end of a socketpair and its unread data."""

    def __init__(
        self, console: SerialConsole, sock: socket.socket, name: str, leave: Callable[[], None]
    ) -> None:
        self.name = name
        self.leave = leave
        """Gives its place among all back."""
        self.mode = ConsoleMode.WRITE
        self._console = console
        self._sock = sock
        self._queue: deque[bytearray] = deque()
        self._queued = 0
        self._replay: Replay | None = None
        self._reading = self._writing = False
        self._ending = False
        self._noticed_s = 0.0
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self.read_on()

    def begin(self, scrollback: bytes) -> None:
        """Send the earlier output, without control sequences that make its terminal answer."""
        self._replay = Replay()
        self.give(scrollback)

    def give(self, data: bytes) -> None:
        """Queue bytes of the line for the watcher."""
        if self._replay is not None:
            data = self._replay.feed(data)
            if self._replay.idle:  # from here on the guest asks those who are there
                self._replay = None
        if self._queued + len(data) > _QUEUE_BYTES:
            self.close()
            return
        while data:
            last = self._queue[-1] if self._queue else None
            room = MAX_CONSOLE_BYTES - len(last) if last and last.startswith(DATA) else 0
            if last is None or not room:
                last, room = bytearray(DATA), _CHUNK_BYTES
                self._queue.append(last)
                self._queued += len(DATA)
            last += data[:room]
            self._queued += len(data[:room])
            data = data[room:]
        self._write()

    def tell(self, notice: ConsoleNotice) -> None:
        """Queue a notice."""
        self._noticed_s = self._loop.time()
        message = bytearray(CONTROL + msgspec.json.encode(notice))
        if self._queue and self._queue[-1].startswith(CONTROL):
            self._queued -= len(self._queue.pop())  # who writes now is all that counts
        if self._queued + len(message) > _QUEUE_BYTES:
            self.close()
            return
        self._queue.append(message)
        self._queued += len(message)
        self._write()

    def remind(self, notice: ConsoleNotice) -> None:
        """Repeat the notice, unless it was just sent."""
        if self._loop.time() - self._noticed_s >= _NOTICE_EVERY_S:
            self.tell(notice)

    def end(self) -> None:
        """No more data: let it read what is queued, then close."""
        self._ending = True
        self._write()

    def close(self) -> None:
        """Close it at once."""
        if self._sock.fileno() < 0:
            return
        self.pause()
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._console._forget(self)

    def pause(self) -> None:
        """Read nothing of it for now."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def read_on(self) -> None:
        """Read its input."""
        if not self._reading and self._sock.fileno() >= 0:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._read)

    def _write(self) -> None:
        while self._queue and self._sock.fileno() >= 0:
            try:
                self._sock.send(self._queue[0])
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError:
                self.close()
                return
            self._queued -= len(self._queue.popleft())
        if self._sock.fileno() < 0:
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())
        if self._ending:
            self.close()

    def _read(self) -> None:
        try:
            message = self._sock.recv(MAX_CONSOLE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if message.startswith(DATA):
            self._console._type(self, message[1:])
        elif message.startswith(CONTROL):
            try:
                self._console._ask(self, decode_json(message[1:], ConsoleAsk).mode)
            except UndecodableError as error:
                _log.warning("a console sent what can't be understood: %s", error)
                self.close()
        else:
            self.close()


class SerialConsole:
    """The serial line of one VM, across its starts."""

    def __init__(self, on_takeover: OnTakeover | None = None) -> None:
        self._scrollback = Scrollback()
        self._watchers: set[_Watcher] = set()
        self._places = Places(
            "consoles are open on this serial line", total=_WATCHERS_MAX, each=_WATCHERS_EACH
        )
        self._writer: _Watcher | None = None
        self._on_takeover = on_takeover
        self._sock: socket.socket | None = None
        self._typed = bytearray()
        self._stalled = False
        self._stall: asyncio.TimerHandle | None = None
        """Runs while the writer waits for the guest."""
        self._held: bytearray | None = None

    @property
    def attached(self) -> bool:
        """True while there is a line to the guest."""
        return self._sock is not None

    def attach(self, sock: socket.socket, *, hold: bool = False) -> None:
        """Take over a connected socket of QEMU's.

        With `hold`, new output is held back until `release` adds the output before it.
        """
        self.detach()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSEEN_BYTES)
        self._sock = sock
        self._held = bytearray() if hold else None
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)

    def release(self, earlier: bytes) -> None:
        """Put `earlier` before what was held back, and continue."""
        held, self._held = self._held, None
        data = merge_overlap(earlier, bytes(held or b""))
        if data:
            self._take(data)

    def detach(self) -> None:
        """The line is gone; the scrollback and the watchers stay."""
        sock, self._sock = self._sock, None
        if self._held is not None:
            self.release(b"")
        if sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock.fileno())
            loop.remove_writer(sock.fileno())
            sock.close()
        self._typed.clear()
        self._flows()

    def drain(self) -> None:
        """QEMU has ended: read what it left in the socket, then close it."""
        while self._receive():
            pass
        self.detach()

    def clear(self) -> None:
        """Clear the scrollback: the VM starts again."""
        self._scrollback.clear()

    def end_watchers(self) -> None:
        """The VM is off: each watcher gets the rest and sees the end."""
        for watcher in list(self._watchers):
            watcher.end()

    def close(self) -> None:
        """Close everything."""
        self.detach()
        for watcher in list(self._watchers):
            watcher.close()

    def watch(self, actor: str = "somebody", origin: str = "") -> socket.socket:
        """A new watcher's socket; it begins with the scrollback.

        It becomes the writer once it asks to, or types while there is none.
        """
        leave = self._places.take(actor)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        watcher = _Watcher(self, ours, f"{actor} at {origin}" if origin else actor, leave)
        self._watchers.add(watcher)
        watcher.begin(self._scrollback.content())
        return theirs

    def scrollback(self) -> bytes:
        """The output that is kept."""
        return self._scrollback.content()

    def _read(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        """Read what is available; False if there is nothing now or ever."""
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(_CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self.detach()
            return False
        if self._held is not None:
            self._held += data
            if len(self._held) > _QUEUE_BYTES:  # QEMU takes its time, and the guest doesn't
                del self._held[:-SCROLLBACK_BYTES]
        else:
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self._scrollback.append(data)
        for watcher in list(self._watchers):
            watcher.give(data)

    def _ask(self, watcher: _Watcher, mode: ConsoleMode) -> None:
        """A watcher's request; those that it affects are notified."""
        before = self._writer
        watcher.mode = mode
        if mode is ConsoleMode.WATCH:
            if before is watcher:
                self._writer = None
        elif mode is ConsoleMode.TAKEOVER or before is None:
            self._writer = watcher
        if before is self._writer:
            watcher.tell(self._notice(watcher))
            return
        if before is not None:
            before.read_on()
            if self._writer is not None and self._on_takeover is not None:
                self._on_takeover(watcher.name, before.name)
        self._tell_all()

    def _notice(self, watcher: _Watcher) -> ConsoleNotice:
        writer = self._writer
        if writer is None or writer is watcher:
            return ConsoleNotice(
                writer=writer is watcher, stalled=self._stalled and writer is watcher
            )
        return ConsoleNotice(writer=False, holder=writer.name)

    def _tell_all(self) -> None:
        for watcher in list(self._watchers):
            watcher.tell(self._notice(watcher))

    def _type(self, watcher: _Watcher, data: bytes) -> None:
        """Input for the guest from its writer; if the guest can't take it, the writer waits."""
        if self._writer is None and watcher.mode is not ConsoleMode.WATCH:
            self._ask(watcher, ConsoleMode.WRITE)
        if self._writer is not watcher:
            watcher.remind(self._notice(watcher))
            return
        if self._sock is None:
            return
        if self._stalled:
            watcher.remind(self._notice(watcher))
            return
        self._typed += data
        self._send_typed()
        if len(self._typed) > _TYPED_BYTES:
            watcher.pause()
            self._wait_for_guest()

    def _send_typed(self) -> None:
        sock = self._sock
        if sock is None:
            return
        loop = asyncio.get_running_loop()
        while self._typed:
            try:
                sent = sock.send(self._typed)
            except (BlockingIOError, InterruptedError):
                loop.add_writer(sock.fileno(), self._send_typed)
                break
            except OSError:
                self._typed.clear()
                break
            del self._typed[:sent]
            self._stop_waiting()
        if not self._typed:
            with contextlib.suppress(ValueError):
                loop.remove_writer(sock.fileno())
        if len(self._typed) <= _TYPED_BYTES:
            self._flows()
        elif not self._stalled:
            self._wait_for_guest()

    def _wait_for_guest(self) -> None:
        if self._stall is None:
            self._stall = asyncio.get_running_loop().call_later(STALL_S, self._drop_further)

    def _stop_waiting(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _drop_further(self) -> None:
        """The guest takes nothing: its writer is read on, and what it types is dropped."""
        self._stall = None
        self._stalled = True
        if self._writer is not None:
            self._writer.read_on()
            self._writer.tell(self._notice(self._writer))

    def _flows(self) -> None:
        """There is room for what is typed."""
        self._stop_waiting()
        stalled, self._stalled = self._stalled, False
        if self._writer is None:
            return
        self._writer.read_on()
        if stalled:
            self._writer.tell(self._notice(self._writer))

    def _forget(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)
        watcher.leave()
        if self._writer is watcher:
            self._writer = None
            self._tell_all()
