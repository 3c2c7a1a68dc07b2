"""A receiver of webhooks outside of the host: one that takes them, and all the others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Received", "Receiver", "SECRET", "receiver", "verify"]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass(frozen=True)
class Received:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def event(self) -> dict[str, Any]:
        """The event that it brings."""
        event: dict[str, Any] = json.loads(self.body)["data"]
        return event


class Receiver:
    """Each request is answered as `behaviour` says:

    200, 500, 410, 302 ...   that status;  `retry N`  503 with Retry-After
    hang        nothing is answered;  reset  the connection is reset
    close       it is closed without an answer;  drip  the head comes a byte at a time
    flood       a head without end
    """

    def __init__(self) -> None:
        self.behaviour = "200"
        self.received: list[Received] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook?a=b"
        self.ending = threading.Event()

    def serve(self) -> None:
        """Accept until the end."""
        while not self.ending.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()
        self._listener.close()

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(10)
            try:
                self.received.append(_read(sock))
                self._behave(sock, self.behaviour)
            except (OSError, ValueError):
                return

    def _behave(self, sock: socket.socket, behaviour: str) -> None:
        if behaviour == "hang":
            self.ending.wait(60)
        elif behaviour == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif behaviour == "drip":
            for each in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                sock.sendall(bytes([each]))
                if self.ending.wait(0.2):
                    return
        elif behaviour == "flood":
            while not self.ending.is_set():
                sock.sendall(b"X: " + b"y" * 4000 + b"\r\n")
        elif behaviour != "close":
            status, _, retry = behaviour.removeprefix("retry ").partition(" ")
            extra = ""
            if behaviour.startswith("retry"):
                status, extra = "503", f"Retry-After: {behaviour[6:]}\r\n"
            if status == "302":
                extra = f"Location: {self.url}\r\n"
            sock.sendall(f"HTTP/1.1 {status} X\r\n{extra}Content-Length: 0\r\n\r\n".encode())
            del retry

    def wait_for(self, count: int, *, timeout_s: float = 20.0) -> list[Received]:
        """The first requests, once so many have come."""
        end = time.monotonic() + timeout_s
        while len(self.received) < count:
            assert time.monotonic() < end, f"{len(self.received)} of {count} requests came"
            time.sleep(0.05)
        return self.received[:count]


def _read(sock: socket.socket) -> Received:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise ValueError("no request")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    while len(body) < int(headers["content-length"]):
        body += sock.recv(65536)
    return Received(first, headers, body, time.time())


def verify(received: Received, secret: str = SECRET) -> None:
    """Check a request as the Standard Webhooks specification says a receiver does."""
    message_id, timestamp = received.headers["webhook-id"], received.headers["webhook-timestamp"]
    assert abs(int(timestamp) - received.at_s) < 300
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + received.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert received.headers["webhook-signature"] == f"v1,{expected}"


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on loopback."""
    made = Receiver()
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.ending.set()
        thread.join(5)
