"""Sees from outside when a server behind the emulator's own network begins to answer.

That network accepts a connection at once, also while the machine has no address yet; such a
connection then hangs, for what it sent is sent again only after seconds. A probe that waits for its
one connection therefore sees the server up to its whole time-out too late. Here a new connection is
begun every moment, and each has its own time to live.
"""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType

__all__ = ["PortWatch"]

_EVERY_S = 0.1
_LIFE_S = 2.0
_NO_TLS = b"\n" * 16
"""A server of TLS refuses it at once, which costs it nothing."""


class PortWatch:
    """Watches a port of 127.0.0.1; close it, or use it as a context."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: dict[socket.socket, float] = {}
        """Connections that have not been answered, with when they were begun."""

    def __enter__(self) -> PortWatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()

    def answers(self) -> bool:
        """Begin one more connection; tell within 0.1 s whether any has been answered, refused or
        ended by now. If it has, the others are closed.
        """
        now = time.monotonic()
        for connection in [c for c, began in self._open.items() if now - began > _LIFE_S]:
            self._forget(connection)
        self._begin(now)
        ready, _, _ = select.select(list(self._open), [], [], _EVERY_S)
        if ready:
            self.close()
        return bool(ready)

    def _begin(self, now: float) -> None:
        connection = socket.socket()
        try:
            connection.settimeout(_LIFE_S)
            connection.connect(("127.0.0.1", self._port))
            connection.sendall(_NO_TLS)
        except OSError:
            connection.close()
            return
        self._open[connection] = now

    def _forget(self, connection: socket.socket) -> None:
        connection.close()
        del self._open[connection]
