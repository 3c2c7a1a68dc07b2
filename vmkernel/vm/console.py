"""A VM's serial line: one connection to QEMU, a bounded scrollback, any number of watchers.

    QEMU --socket--> SerialConsole --+--> ring (scrollback)
         <-----------     ^          +--> watcher's queue --> socketpair --> who asked
                          +----------------- bytes typed -------- socketpair

QEMU's socket is always read at once, so a watcher can't hold up the guest. What a watcher has
not taken is queued up to a limit; one that falls further behind is let go, and finds the
scrollback when it comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

__all__ = ["Scrollback", "SerialConsole", "merge_overlap"]

SCROLLBACK_BYTES = 256 << 10
_QUEUE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_TYPED_BYTES = 1 << 16


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
    """`old` and `new` joined, where the longest end of `old` that begins `new` counts once.

    QEMU's ring buffer and its socket tell the same bytes; `new` came by the socket while the
    ring, `old`, was being read.
    """
    for length in range(min(len(old), len(new)), 0, -1):
        if old.endswith(new[:length]):
            return old + new[length:]
    return old + new


class _Watcher:
    """One end of a socketpair and what it has not taken yet."""

    def __init__(self, console: SerialConsole, sock: socket.socket) -> None:
        self._console = console
        self._sock = sock
        self._queue = bytearray()
        self._writing = False
        self._ending = False
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read)

    def give(self, data: bytes) -> None:
        """Queue bytes for the watcher."""
        if len(self._queue) + len(data) > _QUEUE_BYTES:
            self.close()
            return
        self._queue += data
        self._write()

    def end(self) -> None:
        """Nothing more comes: let it take what is queued, then close."""
        self._ending = True
        self._write()

    def close(self) -> None:
        """Let it go at once."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._console._forget(self)

    def _write(self) -> None:
        while self._queue and self._sock.fileno() >= 0:
            try:
                sent = self._sock.send(memoryview(self._queue)[:_CHUNK_BYTES])
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError:
                self.close()
                return
            del self._queue[:sent]
        if self._sock.fileno() < 0:
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())
        if self._ending:
            self.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_TYPED_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._console._type(data)
        else:
            self.close()


class SerialConsole:
    """The serial line of one VM, across its starts."""

    def __init__(self) -> None:
        self._scrollback = Scrollback()
        self._watchers: set[_Watcher] = set()
        self._sock: socket.socket | None = None
        self._typed = bytearray()
        self._held: bytearray | None = None

    @property
    def attached(self) -> bool:
        """True while there is a line to the guest."""
        return self._sock is not None

    def attach(self, sock: socket.socket, *, hold: bool = False) -> None:
        """Take over a connected socket of QEMU's.

        With `hold`, what comes is kept back until `release` brings what came before it.
        """
        self.detach()
        sock.setblocking(False)
        self._sock = sock
        self._held = bytearray() if hold else None
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)

    def release(self, earlier: bytes) -> None:
        """Put `earlier` before what was held back, and go on."""
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

    def drain(self) -> None:
        """QEMU is gone: take what it left in the socket, then let go of it."""
        while self._receive():
            pass
        self.detach()

    def clear(self) -> None:
        """Forget the scrollback: the VM starts anew."""
        self._scrollback.clear()

    def end_watchers(self) -> None:
        """The VM is off: each watcher takes what is left and sees the end."""
        for watcher in list(self._watchers):
            watcher.end()

    def close(self) -> None:
        """Let everything go."""
        self.detach()
        for watcher in list(self._watchers):
            watcher.close()

    def watch(self) -> socket.socket:
        """A new watcher's socket; it begins with the scrollback."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        watcher = _Watcher(self, ours)
        self._watchers.add(watcher)
        content = self._scrollback.content()
        if content:
            watcher.give(content)
        return theirs

    def scrollback(self) -> bytes:
        """What is remembered of the output."""
        return self._scrollback.content()

    def _read(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        """Take what is there; False where nothing is there now or ever."""
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
        else:
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self._scrollback.append(data)
        for watcher in list(self._watchers):
            watcher.give(data)

    def _type(self, data: bytes) -> None:
        """Bytes for the guest; what it can't take now waits up to a limit, then is dropped."""
        if self._sock is None or len(self._typed) + len(data) > _TYPED_BYTES:
            return
        self._typed += data
        self._send_typed()

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
                return
            except OSError:
                self._typed.clear()
                break
            del self._typed[:sent]
        with contextlib.suppress(ValueError):
            loop.remove_writer(sock.fileno())

    def _forget(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)
