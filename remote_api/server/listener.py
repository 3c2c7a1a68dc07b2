"""Accepts connections and begins TLS with those that `admission` permits.

A connection costs a descriptor and some hundred bytes until its first bytes have arrived and a
place is free; TLS begins only then. asyncio's own server starts TLS with every connection at once,
with a buffer of 256 KiB for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable, Sequence

from remote_api.server.admission import Admission, Peer, Stage

__all__ = [
    "Listener",
    "UNSENT_BYTES",
    "grow_buffer",
]

logger = logging.getLogger("mica.api")

HELLO_TIMEOUT_S = 3.0
"""In TLS the client speaks first: one round trip after it has connected."""
TURN_TIMEOUT_S = 10.0
"""How long a client that has spoken waits for a place."""
HANDSHAKE_TIMEOUT_S = 4.0
"""Two more round trips; HELLO_TIMEOUT_S has passed a third."""
TLS_CLOSE_TIMEOUT_S = 2.0
BACKLOG = 512
"""When it is full the kernel drops new connections, and a client tries again only after a second;
the larger it is, the longer the last one waits."""
_ACCEPTS_AT_ONCE = 128
"""Then requests have their turn."""
_SWEEP_S = 0.25
_TURN_S = 0.02
"""How often a free place is searched for while there is none."""
_NO_DESCRIPTOR_PAUSE_S = 0.2
_ENDED_A_COLLECTION = 32
"""A closed TLS connection is garbage in a cycle, with up to 200 KiB of buffers that Python's
collector doesn't count."""
_STRANGERS_BUFFER_BYTES = 16 << 10
"""One TLS record: the least that a connection needs."""
_USERS_BUFFER_BYTES = 64 << 10
UNSENT_BYTES = 64 << 10
"""Unsent data that the kernel keeps; data in flight are limited by the window."""

# There is no other way to say it: asyncio makes this object by itself, and its buffer with it.
sslproto.SSLProtocol.max_size = _STRANGERS_BUFFER_BYTES


class Listener:
    """Owns the listening sockets, and connections until their handshake is done."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        context: Callable[[], ssl.SSLContext],
        make_protocol: Callable[[Peer], asyncio.Protocol],
        admission: Admission,
    ) -> None:
        self._sockets = list(sockets)
        self._context = context
        self._make_protocol = make_protocol
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._full_told = False
        self._promoting = False
        self._collected = 0

    def start(self) -> None:
        for sock in self._sockets:
            sock.setblocking(False)
            sock.listen(BACKLOG)
        self._resume()

    def _sweep(self) -> None:
        """End what has waited too long, and tidy up after what has ended: one timer for all."""
        self._admission.end_late(HELLO_TIMEOUT_S, TURN_TIMEOUT_S)
        if self._admission.ended - self._collected >= _ENDED_A_COLLECTION:
            self._collected = self._admission.ended
            gc.collect()
        waiting = self._admission.count(Stage.WAITING) > 0
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep) if waiting else None

    def close(self) -> None:
        """Accept no more; handshakes under way end."""
        for timer in (self._resuming, self._sweeping):
            if timer is not None:
                timer.cancel()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        self._sockets.clear()
        for peer in self._admission.everyone():
            if peer.stage in (Stage.WAITING, Stage.HANDSHAKE):
                self._admission.gone(peer)
                peer.end()

    async def wait_closed(self) -> None:
        """Return once no handshake is under way any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def promote(self) -> None:
        """Soon begin the handshakes for which there is a place: once for all that asks now."""
        if not self._promoting:
            self._promoting = True
            self._loop.call_soon(self._promote)

    def _promote(self) -> None:
        self._promoting = False
        while (peer := self._admission.next_ready()) is not None:
            peer.begin()
        if self._admission.anyone_ready:
            self._promoting = True
            self._loop.call_later(_TURN_S, self._promote)

    def _resume(self) -> None:
        self._resuming = None
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            sock.setblocking(False)
            if self._sweeping is None:
                self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
            _Arrival(self, sock, str(address[0]))

    def _pause(self, error: OSError) -> None:
        """There is no descriptor or memory for another one: let some go first."""
        self._admission.counters["no-descriptor"] += 1
        if not self._full_told:
            self._full_told = True
            logger.error("connections can't be accepted for now: %s", error)
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
        self._resuming = self._loop.call_later(_NO_DESCRIPTOR_PAUSE_S, self._resume)


class _Arrival:
    """A connection up to the end of its handshake."""

    def __init__(self, listener: Listener, sock: socket.socket, address: str) -> None:
        self._listener = listener
        self._loop = listener._loop
        self._sock = sock
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._loop.add_reader(sock.fileno(), self._hello)
        self._peer = listener._admission.arrive(address, begin=self._begin, end=self._end)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._shake_hands())
        self._listener._tasks.add(self._task)
        self._task.add_done_callback(self._done)

    def _give_up(self) -> None:
        self._listener._admission.gone(self._peer)
        self._end()

    def _hello(self) -> None:
        try:
            first = self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if first != b"\x16":  # no TLS, or gone
            self._give_up()
            return
        self._loop.remove_reader(self._sock.fileno())
        self._listener._admission.spoke(self._peer)
        self._listener.promote()

    async def _shake_hands(self) -> None:
        self._begun = True
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._listener._make_protocol(self._peer),
                self._sock,
                ssl=self._listener._context(),
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=TLS_CLOSE_TIMEOUT_S,
            )
        except OSError:  # broken, or too slow; asyncio closes the socket
            self._listener._admission.counters["handshake-failed"] += 1

    def _done(self, task: asyncio.Task[None]) -> None:
        self._listener._tasks.discard(task)
        if not self._begun:  # cancelled before its first step
            self._sock.close()
        if self._peer.stage is not Stage.OPEN:
            self._listener._admission.gone(self._peer)
        self._listener.promote()


def grow_buffer(transport: asyncio.BaseTransport) -> None:
    """Read from a user in larger parts: uploads are twice as fast with them."""
    protocol = getattr(transport, "_ssl_protocol", None)
    if protocol is not None:
        protocol.max_size = _USERS_BUFFER_BYTES
