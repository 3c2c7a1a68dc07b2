"""A syslog collector on the outside network: TCP, each message with its length before it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Collector", "collecting"]


class Collector:
    """The messages that have arrived."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.port = 0

    def holds(self, text: str) -> bool:
        """Whether a message with that text has arrived."""
        return any(text in message for message in list(self.messages))


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect on the loopback address, which those inside see as answering.OUTSIDE."""
    collector = Collector()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while (length := self._length()) is not None:
                collector.messages.append(self.rfile.read(length).decode())

        def _length(self) -> int | None:
            digits = b""
            while (byte := self.rfile.read(1)) not in (b" ", b""):
                digits += byte
            return int(digits) if digits else None

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join(timeout=10)
