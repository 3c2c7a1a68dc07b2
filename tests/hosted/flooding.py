"""A client that means harm: `python -m tests.hosted.flooding ADDRESS KIND SECONDS [TOKEN]`.

It runs for so long and ends by itself; what it managed is one line of JSON. Each kind feeds one of
the host's queues, from this machine's loopback addresses only. It leaves the processors to the
host where both want them, as a client on another machine does.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import socket
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

__all__ = ["STRANGERS", "USERS", "VM"]

VM = "flooded"
"""A running VM with a serial line and a display, and an image of some MiB of the same name."""

_HELD = 1500
"""Sockets that one flooder holds at once."""
_PER_SECOND = 200
"""A limit for the flooder itself, so that it doesn't take the processors from the host."""


class Flood:
    """Where to, and what became of it."""

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        self.where = (str(parts.hostname), int(parts.port or 443))
        self.token = token
        self.seen: Counter[str] = Counter()
        self.held: deque[socket.socket] = deque()
        self.number = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def connect(self, source: str | None) -> socket.socket | None:
        """A TCP connection from a loopback address."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(2.0)
        try:
            if source is not None:
                sock.bind((source, 0))
            sock.connect(self.where)
        except OSError as error:
            self.seen[type(error).__name__] += 1
            sock.close()
            return None
        self.seen["connected"] += 1
        return sock

    def hold(self, sock: socket.socket | None) -> None:
        """Keep it open, and let the oldest go when there are too many."""
        if sock is None:
            return
        self.held.append(sock)
        if len(self.held) > _HELD:
            self.held.popleft().close()

    def tls(self, source: str | None) -> ssl.SSLSocket | None:
        """A TLS connection."""
        sock = self.connect(source)
        if sock is None:
            return None
        try:
            return self._context.wrap_socket(sock)
        except OSError as error:
            self.seen[f"tls {type(error).__name__}"] += 1
            sock.close()
            return None

    def half_handshake(self, source: str | None) -> None:
        """A ClientHello, and no more."""
        sock = self.connect(source)
        if sock is None:
            return
        outgoing = ssl.MemoryBIO()
        half = self._context.wrap_bio(ssl.MemoryBIO(), outgoing)
        with contextlib.suppress(ssl.SSLWantReadError):
            half.do_handshake()
        with contextlib.suppress(OSError):
            sock.send(outgoing.read())
        self.hold(sock)

    def send(self, source: str | None, data: bytes, *, keep: bool = True) -> None:
        """Send something over TLS; the answer's status is counted if it is waited for."""
        if not keep:
            self.ask(source, data)
            return
        sock = self.tls(source)
        if sock is None:
            return
        try:
            sock.sendall(data)
            self.hold(sock)
        except OSError as error:
            self.seen[f"send {type(error).__name__}"] += 1
            sock.close()

    def ask(self, source: str | None, data: bytes) -> bytes:
        """Send something over TLS; the beginning of the answer, whose status is counted."""
        sock = self.tls(source)
        if sock is None:
            return b""
        with sock:
            try:
                sock.sendall(data)
                answer = sock.recv(16384)
                if answer.endswith(b"\r\n\r\n"):
                    answer += sock.recv(16384)
            except OSError as error:
                self.seen[f"send {type(error).__name__}"] += 1
                return b""
        self.seen[answer[9:12].decode("ascii", "replace") or "closed"] += 1
        return answer


def _sources(count: int) -> Iterator[str]:
    for number in itertools.cycle(range(count)):
        yield f"127.{1 + number // 62500}.{1 + number // 250 % 250}.{1 + number % 250}"


def _request(line: str, *headers: str, body: bytes = b"", token: str = "") -> bytes:
    lines = [line, "Host: test", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"
ONE = itertools.repeat("127.200.0.1")
SAME = itertools.repeat("127.0.0.1")
"""The address of the user who is not to notice."""

Attack = Callable[[Flood, str], object]
STRANGERS: dict[str, tuple[Iterator[str], Attack]] = {
    "silent-one-source": (ONE, lambda f, s: f.hold(f.connect(s))),
    "silent-same-source": (SAME, lambda f, s: f.hold(f.connect(s))),
    "silent-many-sources": (_sources(5000), lambda f, s: f.hold(f.connect(s))),
    "half-one-source": (ONE, lambda f, s: f.half_handshake(s)),
    "half-many-sources": (_sources(2000), lambda f, s: f.half_handshake(s)),
    "idle-tls": (_sources(40), lambda f, s: f.hold(f.tls(s))),
    "slow-heads": (_sources(40), lambda f, s: f.send(s, b"GET /v1 HTTP/1.1\r\nHost: t")),
    "slow-bodies": (
        _sources(40),
        lambda f, s: f.send(
            s, _request("POST /v1/claim HTTP/1.1", JSON, "Content-Length: 9000", body=b"{" * 5000)
        ),
    ),
    "unread-answers": (
        _sources(40),
        lambda f, s: f.send(s, _request("GET /v1 HTTP/1.1") * 400),
    ),
    "malformed": (_sources(40), lambda f, s: f.send(s, b"\0\1\2 no\r\n\r\n", keep=False)),
    "garbage-tokens": (
        _sources(40),
        lambda f, s: f.send(
            s, _request("GET /v1/vms HTTP/1.1", token=f"mica_no_{time.time_ns()}"), keep=False
        ),
    ),
    "wrong-codes": (
        _sources(40),
        lambda f, s: f.send(
            s,
            _request(
                "POST /v1/claim HTTP/1.1",
                JSON,
                "Content-Length: 22",
                body=b'{"code": "ABCDEABCDE"}',
            ),
            keep=False,
        ),
    ),
}


def _ticket(flood: Flood, source: str, kind: str) -> str | None:
    body = f'{{"kind": "{kind}"}}'.encode()
    answer = flood.ask(
        source,
        _request(
            f"POST /v1/vms/{VM}/console HTTP/1.1",
            JSON,
            f"Content-Length: {len(body)}",
            "Connection: close",
            body=body,
            token=flood.token,
        ),
    )
    match = re.search(rb'"websocket":"([^"]+)"', answer)
    return match[1].decode() if match else None


def _console(flood: Flood, source: str) -> None:
    path = _ticket(flood, source, "serial")
    if path is not None:
        flood.send(
            source,
            _request(
                f"GET {path} HTTP/1.1",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        )


def _upload_left(flood: Flood, source: str) -> None:
    line = f"PUT /v1/images/left-{flood.number}?datastore=main&format=raw HTTP/1.1"
    headers = ("If-None-Match: *", "Content-Type: application/octet-stream")
    flood.send(
        source,
        _request(line, *headers, "Content-Length: 1048576", body=b"x" * 4096, token=flood.token),
    )


def _tus_left(flood: Flood, source: str) -> None:
    image = base64.b64encode(f"tus-{flood.number}".encode()).decode()
    datastore = base64.b64encode(b"main").decode()
    flood.send(
        source,
        _request(
            "POST /v1/uploads HTTP/1.1",
            "Tus-Resumable: 1.0.0",
            "Upload-Length: 65536",
            f"Upload-Metadata: image {image},datastore {datastore},format cmF3",
            "Content-Length: 0",
            token=flood.token,
        ),
        keep=False,
    )


def _pull(flood: Flood, source: str) -> None:
    body = json.dumps(
        {"spec": {"datastore": "main", "url": "http://127.0.0.1:9/x", "sha256": "0" * 64}}
    ).encode()
    flood.send(
        source,
        _request(
            f"POST /v1/images/pulled-{flood.number}/pull HTTP/1.1",
            JSON,
            f"Content-Length: {len(body)}",
            body=body,
            token=flood.token,
        ),
        keep=False,
    )


def _held(line: str, *headers: str, body: bytes = b"", times: int = 1) -> Attack:
    def attack(flood: Flood, source: str) -> None:
        flood.send(source, _request(line, *headers, body=body, token=flood.token) * times)

    return attack


USERS: dict[str, tuple[Iterator[str], Attack]] = {
    "event-streams": (_sources(40), _held("GET /v1/events HTTP/1.1")),
    "tickets": (_sources(40), lambda f, s: _ticket(f, s, "vnc")),
    "consoles": (_sources(40), _console),
    "uploads-left": (_sources(40), _upload_left),
    "tus-left": (_sources(40), _tus_left),
    "pulls": (_sources(40), _pull),
    "operations": (
        _sources(40),
        lambda f, s: f.send(
            s,
            _request(f"POST /v1/vms/{VM}/reset HTTP/1.1", "Content-Length: 0", token=f.token),
            keep=False,
        ),
    ),
    "downloads-unread": (_sources(40), _held(f"GET /v1/images/{VM}/data HTTP/1.1")),
    "lists-unread": (_sources(40), _held("GET /v1/operations?limit=1000 HTTP/1.1", times=100)),
    "large-bodies": (
        _sources(40),
        _held(
            "PUT /v1/vms/never HTTP/1.1",
            JSON,
            "If-None-Match: *",
            "Content-Length: 1000000",
            body=b"[" * 500_000,
        ),
    ),
}


def main(argv: list[str]) -> int:
    """Flood until the time is over."""
    address, kind, seconds, *token = argv
    os.nice(15)
    flood = Flood(address, *token, *[""][len(token) :])
    sources, attack = {**STRANGERS, **USERS}[kind]
    began = time.monotonic()
    for count in itertools.count(1):
        flood.number = count
        attack(flood, next(sources))
        elapsed_s = time.monotonic() - began
        if elapsed_s > float(seconds):
            break
        time.sleep(max(0.0, count / _PER_SECOND - elapsed_s))
    print(json.dumps({"kind": kind, "tried": count, **flood.seen}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
