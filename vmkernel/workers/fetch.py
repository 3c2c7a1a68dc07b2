"""Fetch one file from an HTTP or HTTPS server into an open file.

JOB: url, target (descriptor), max_bytes, ca_pem, allow_loopback. Outcome: size_bytes, url.

connected as workers/outbound.py says -> GET
        -> redirect?  (5 times, from the beginning)
        -> body -> broken off? again from there by Range, where the server can (5 times in a row
           without a byte of progress), else from the beginning
The reader of the file verifies the digest, not this process, which a server may attack.
Sources: RFC 9110 (redirects 15.4, ranges 14), RFC 9112; h11 parses.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urljoin

import h11

from vmkernel.workers.outbound import BrokenError, connected, judge_url, untrusted, words_of
from vmkernel.workers.report import Refusal, Report, run

__all__ = ["Job", "fetch", "main"]

_REDIRECTS = 5
_FRUITLESS = 5
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_CHUNK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")


@dataclass
class Job:
    """The request, and its progress."""

    url: str
    target: int
    max_bytes: int
    chosen: bool = False
    """True if the client set that limit; else it is the free space."""
    ca_pem: str | None = None
    allow_loopback: bool = False
    pauses_s: tuple[float, ...] = _PAUSES_S
    done: int = 0
    total: int | None = None
    validator: str | None = None
    """ETag (strong) or Last-Modified: a download may only be continued with the same file."""
    report: Report = field(default_factory=Report)


def fetch(job: Job) -> str:
    """Fetch the whole file; returns its final URL. Raises Refusal."""
    fruitless = 0
    while True:
        before = job.done
        try:
            return _attempt(job)
        except (BrokenError, OSError, h11.RemoteProtocolError) as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise untrusted(error) from error
            if isinstance(error, OSError) and error.filename == "target":
                raise
            fruitless = 0 if job.done > before else fruitless + 1
            if fruitless >= len(job.pauses_s):
                raise Refusal(
                    "truncated" if job.done else "unavailable",
                    f"The server can't be read: {words_of(error)}; "
                    f"{job.done} of {job.total or 'unknown'} bytes came.",
                ) from error
            time.sleep(job.pauses_s[fruitless])


def _attempt(job: Job) -> str:
    parts = judge_url(job.url)
    url = job.url
    for _ in range(_REDIRECTS + 1):
        with connected(parts, allow_loopback=job.allow_loopback, ca_pem=job.ca_pem) as sock:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 15)
            response = _ask(sock, connection, parts, job)
            headers = {k.decode("ascii"): v.decode("latin-1") for k, v in response.headers}
            if response.status_code in (301, 302, 303, 307, 308):
                url = urljoin(url, headers.get("location", ""))
                parts = judge_url(url, before=parts)
                continue
            if _begin(job, response.status_code, headers):
                _read_body(sock, connection, job)
            return url
    raise Refusal("invalid", f"The server redirects more than {_REDIRECTS} times.")


def _ask(sock: socket.socket, connection: h11.Connection, parts: SplitResult, job: Job) -> Any:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [
        ("Host", parts.netloc),
        ("User-Agent", "mica"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    if job.done and job.validator is None:
        # Without a validator nobody knows whether it would be the same file.
        job.done = 0
    if job.done:
        headers.append(("Range", f"bytes={job.done}-"))
        if job.validator is not None:
            headers.append(("If-Range", job.validator))
    request = h11.Request(method="GET", target=target, headers=headers)
    sock.sendall(connection.send(request) or b"")
    sock.sendall(connection.send(h11.EndOfMessage()) or b"")
    while True:
        event = _next(sock, connection)
        if isinstance(event, h11.Response):
            return event


def _begin(job: Job, status: int, headers: dict[str, str]) -> bool:
    """Check the head of a response; False if nothing more follows."""
    if job.done and status == 416 and job.done == job.total:
        return False
    if job.done and status == 206:
        match = _RANGE.match(headers.get("content-range", ""))
        if match is None or int(match[1]) != job.done or int(match[3]) != (job.total or -1):
            raise Refusal("invalid", "The server answers with another range than was asked for.")
        return True
    if status != 200:
        kind = "unavailable" if status >= 500 or status == 429 else "invalid"
        if kind == "unavailable":
            raise BrokenError(f"it answers {status}")
        raise Refusal(kind, f"The server answers {status} instead of the file.")
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise Refusal("invalid", "The server encodes the file, though identity was asked for.")
    job.done = 0
    os.ftruncate(job.target, 0)
    length = headers.get("content-length")
    job.total = int(length) if length is not None else None
    tag = headers.get("etag", "")
    job.validator = tag if tag.startswith('"') else headers.get("last-modified")
    if headers.get("accept-ranges", "bytes").lower() == "none" or job.total is None:
        job.validator = None
    if job.total is not None and job.total > job.max_bytes:
        raise _too_long(job, f"The file has {job.total} bytes")
    return True


def _too_long(job: Job, what: str) -> Refusal:
    if job.chosen:
        return Refusal("invalid", f"{what}, more than its `max_bytes` of {job.max_bytes}.")
    return Refusal("insufficient-space", f"{what}, and {job.max_bytes} bytes are free.")


def _read_body(sock: socket.socket, connection: h11.Connection, job: Job) -> None:
    while True:
        event = _next(sock, connection)
        if isinstance(event, h11.EndOfMessage):
            break
        if not isinstance(event, h11.Data):
            continue
        data = memoryview(bytes(event.data))
        if job.done + len(data) > job.max_bytes:
            raise _too_long(job, "The file is longer than its server said")
        while data:
            try:
                written = os.pwrite(job.target, data, job.done)
            except OSError as error:
                error.filename = "target"
                raise
            job.done += written
            data = data[written:]
        job.report.progress(job.done, job.total or 0)
    if job.total is not None and job.done != job.total:
        raise BrokenError(f"it sent {job.done} of {job.total} bytes")


def _next(sock: socket.socket, connection: h11.Connection) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(sock.recv(_CHUNK_BYTES))
    if isinstance(event, h11.ConnectionClosed):
        raise BrokenError("it closed the connection")
    return event


def main(argv: list[str]) -> int:
    def work(given: dict[str, Any]) -> dict[str, Any]:
        job = Job(**given)
        url = fetch(job)
        os.fsync(job.target)
        return {"size_bytes": job.done, "url": url}

    return run(work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
