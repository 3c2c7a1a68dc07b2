"""A server on the outside network that sends one line to every client."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OUTSIDE", "answering"]

OUTSIDE = "10.0.2.2"
"""This machine, as the emulator's network shows it to those inside."""


@contextmanager
def answering(line: str) -> Iterator[int]:
    """Serve the line on the loopback address; the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(line.encode() + b"\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(timeout=10)
