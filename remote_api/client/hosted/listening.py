"""Where hosted mode listens: the socket is opened here, before anything else is started, so that
nothing but our own listener can ever answer there."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from pathlib import Path

from remote_api.client.errors import ConflictError, MisuseError

__all__ = ["listening_socket", "reachable_address"]

_BACKLOG = 256
_PRIVILEGED_BELOW = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): a route to them is the default route."""


def listening_socket(text: str) -> socket.socket:
    """A TCP socket that listens at HOST:PORT, [IPV6]:PORT or :PORT (all addresses).

    Raises MisuseError if `text` is none of these, ConflictError if this machine can't listen there.
    """
    host, port = _parsed(text)
    try:
        found = socket.getaddrinfo(host or _everywhere(), port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ConflictError(
            f"--listen {text}: the name {host} can't be resolved; give an address of this machine"
        ) from error
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(host))
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConflictError(_reason(text, host, port, error)) from error
    return sock


def reachable_address(sock: socket.socket) -> str:
    """`https://ADDRESS:PORT` by which clients reach a listening socket.

    If it listens at all addresses, that is the one that this machine sends from.
    """
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(str(host).partition("%")[0]).is_unspecified:
        families = [socket.AF_INET] if sock.family == socket.AF_INET else list(_ELSEWHERE)
        host = next((own for own in map(_own_address, families) if own), None)
        host = host or ("127.0.0.1" if sock.family == socket.AF_INET else "::1")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _parsed(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    open_v6 = ":" in bare and bare == host
    if open_v6 or not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise MisuseError(f"--listen {text}: use HOST:PORT, [IPV6]:PORT or :PORT")
    return bare, int(port)


def _everywhere() -> str:
    """All addresses, of IPv6 too if this machine has it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"  # noqa: S104 - asked for
    return "::"


def _reason(text: str, host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host or 'this machine'} is in use by another program: stop that"
            " program, or give another port with --listen"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: give another one with --listen"
    if error.errno in (errno.EACCES, errno.EPERM):
        try:
            first = _PRIVILEGED_BELOW.read_text().strip()
        except OSError:
            first = "1024"
        return f"port {port} is reserved for root: give a port of {first} or more with --listen"
    return f"can't listen on {text}: {error.strerror}; give another --listen"


def _own_address(family: int) -> str | None:
    """The address that this machine sends from; choosing it sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((_ELSEWHERE[socket.AddressFamily(family)], 9))
            return str(sock.getsockname()[0])
    except OSError:
        return None
