"""Fetch one file from an HTTP or HTTPS server into an open file.

JOB: url, target (descriptor), max_bytes, ca_pem, allow_loopback. Outcome: size_bytes, url.

resolve -> refuse addresses of this host itself -> connect -> refuse again -> [TLS] -> GET
        -> redirect?  (5 times, from the beginning)
        -> body -> broken off? again from there by Range, where the server can (5 times in a row
           without a byte of progress), else from the beginning
The checked address is the one that is connected to, so a name can't change in between; the
host's own addresses are those of the moment, by the kernel's routes. The reader of the file
verifies the digest, not this process, which a server may attack.
Sources: RFC 9110 (redirects 15.4, ranges 14), RFC 9112; h11 parses.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - before the files are out of reach
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from vmkernel.workers.addresses import judge_address
from vmkernel.workers.report import Refusal, Report, run

__all__ = ["Job", "fetch", "judge_url", "main"]

_CONNECT_S = 15.0
_SILENCE_S = 45.0
_REDIRECTS = 5
_FRUITLESS = 5
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_CHUNK_BYTES = 1 << 18
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Made when the package is installed; the appliance has the single files alone."""
_AUTHORITY_FILES = Path("/usr/share/ca-certificates/mozilla")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")


class _BrokenError(Exception):
    """The connection failed in a way that another one may not."""


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


def judge_url(url: str, *, before: SplitResult | None = None) -> SplitResult:
    """The parts of an address that may be fetched; else Refusal. `before` is the address that
    redirected here: from https it may not lead to http.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refusal("invalid", f"The URL can't be read: {error}.") from error
    if parts.scheme not in ("http", "https"):
        what = "The redirect leads to" if before else "The URL is of"
        raise Refusal("invalid", f"{what} the scheme {parts.scheme[:20]!r}; only http and https.")
    if before is not None and before.scheme == "https" and parts.scheme == "http":
        raise Refusal("invalid", "The server redirects from https to http, which is not followed.")
    if not parts.hostname or any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in url):
        raise Refusal(
            "invalid", "The URL names no host, or contains characters that must be escaped."
        )
    if parts.username is not None or parts.password is not None:
        raise Refusal("invalid", "The URL contains credentials; they would end up in logs.")
    if port == 0:
        raise Refusal("invalid", "The URL's port is 0.")
    return parts


def fetch(job: Job) -> str:
    """Fetch the whole file; returns its final URL. Raises Refusal."""
    fruitless = 0
    while True:
        before = job.done
        try:
            return _attempt(job)
        except (_BrokenError, OSError, h11.RemoteProtocolError) as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Refusal(
                    "unavailable",
                    f"The server's certificate is not trusted: {error.verify_message}.",
                ) from error
            if isinstance(error, OSError) and error.filename == "target":
                raise
            fruitless = 0 if job.done > before else fruitless + 1
            if fruitless >= len(job.pauses_s):
                raise Refusal(
                    "truncated" if job.done else "unavailable",
                    f"The server can't be read: {_words(error)}; "
                    f"{job.done} of {job.total or 'unknown'} bytes came.",
                ) from error
            time.sleep(job.pauses_s[fruitless])


def _attempt(job: Job) -> str:
    parts = judge_url(job.url)
    url = job.url
    for _ in range(_REDIRECTS + 1):
        with _connected(parts, job) as sock:
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


@contextlib.contextmanager
def _connected(parts: SplitResult, job: Job) -> Iterator[socket.socket]:
    host = str(parts.hostname)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _BrokenError(f"the name {host} can't be resolved ({_words(error)})") from error
    allowed = [
        entry
        for entry in found
        if judge_address(str(entry[4][0]), allow_loopback=job.allow_loopback)
    ]
    if not allowed:
        raise _own(host)
    sock = _connect(allowed)
    try:
        peer, here = str(sock.getpeername()[0]), str(sock.getsockname()[0])
        if not judge_address(peer, allow_loopback=job.allow_loopback) or (
            peer == here and not job.allow_loopback
        ):
            raise _own(host)
        if parts.scheme == "https":
            sock = _tls(job.ca_pem).wrap_socket(sock, server_hostname=host)
        sock.settimeout(_SILENCE_S)
        yield sock
    finally:
        sock.close()


def _own(host: str) -> Refusal:
    return Refusal(
        "invalid",
        f"{host} is this host itself or a link-local address; nothing is fetched from it.",
    )


def _connect(addresses: list[Any]) -> socket.socket:
    last: OSError | None = None
    for family, kind, protocol, _, address in addresses[:4]:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(_CONNECT_S)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
            continue
        return sock
    assert last is not None
    raise last


def _tls(ca_pem: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_pem is not None:
            context.load_verify_locations(cadata=ca_pem)
        elif _AUTHORITIES.exists():
            context.load_verify_locations(cafile=_AUTHORITIES)
        elif found := sorted(_AUTHORITY_FILES.glob("*.crt")):
            context.load_verify_locations(cadata="\n".join(f.read_text("ascii") for f in found))
        else:
            context.load_default_certs()
    except (OSError, ValueError) as error:
        raise Refusal("invalid", f"The certificates to trust can't be read: {error}.") from error
    return context


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
            raise _BrokenError(f"it answers {status}")
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
        raise _BrokenError(f"it sent {job.done} of {job.total} bytes")


def _next(sock: socket.socket, connection: h11.Connection) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(sock.recv(_CHUNK_BYTES))
    if isinstance(event, h11.ConnectionClosed):
        raise _BrokenError("it closed the connection")
    return event


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no data arrived for {_SILENCE_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)[:200] or type(error).__name__


def main(argv: list[str]) -> int:
    def work(given: dict[str, Any]) -> dict[str, Any]:
        job = Job(**given)
        url = fetch(job)
        os.fsync(job.target)
        return {"size_bytes": job.done, "url": url}

    return run(work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
