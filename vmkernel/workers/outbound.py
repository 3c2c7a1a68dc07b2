"""Connections of workers to servers of others: which may be made, and how TLS is checked.

resolve -> refuse addresses of this host itself -> connect -> refuse again -> [TLS]
The checked address is the one that is connected to, so a name can't change in between; the
host's own addresses are those of the moment, by the kernel's routes.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - before the files are out of reach
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from vmkernel.workers.addresses import judge_address
from vmkernel.workers.report import Refusal

__all__ = [
    "BrokenError",
    "CONNECT_S",
    "SILENCE_S",
    "connected",
    "judge_url",
    "untrusted",
    "words_of",
]

CONNECT_S = 15.0
SILENCE_S = 45.0
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Made when the package is installed; the appliance has the single files alone."""
_AUTHORITY_FILES = Path("/usr/share/ca-certificates/mozilla")


class BrokenError(Exception):
    """The connection failed in a way that another one may not."""


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


@contextlib.contextmanager
def connected(
    parts: SplitResult,
    *,
    allow_loopback: bool,
    ca_pem: str | None = None,
    connect_s: float = CONNECT_S,
) -> Iterator[socket.socket]:
    """A connected socket to the server of a URL. Raises Refusal for an address that may not be
    connected to, BrokenError and OSError for what another attempt may not meet."""
    host = str(parts.hostname)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BrokenError(f"the name {host} can't be resolved ({words_of(error)})") from error
    allowed = [
        entry for entry in found if judge_address(str(entry[4][0]), allow_loopback=allow_loopback)
    ]
    if not allowed:
        raise _own(host)
    sock = _connect(allowed, connect_s)
    try:
        peer, here = str(sock.getpeername()[0]), str(sock.getsockname()[0])
        if not judge_address(peer, allow_loopback=allow_loopback) or (
            peer == here and not allow_loopback
        ):
            raise _own(host)
        if parts.scheme == "https":
            sock = _tls(ca_pem).wrap_socket(sock, server_hostname=host)
        sock.settimeout(SILENCE_S)
        yield sock
    finally:
        sock.close()


def _own(host: str) -> Refusal:
    return Refusal(
        "invalid",
        f"{host} is this host itself or a link-local address; it is not connected to.",
    )


def _connect(addresses: list[Any], connect_s: float) -> socket.socket:
    last: OSError | None = None
    for family, kind, protocol, _, address in addresses[:4]:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(connect_s)
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


def untrusted(error: ssl.SSLCertVerificationError) -> Refusal:
    """What is said of a certificate that does not hold."""
    return Refusal(
        "unavailable", f"The server's certificate is not trusted: {error.verify_message}."
    )


def words_of(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no data arrived for {SILENCE_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)[:200] or type(error).__name__
