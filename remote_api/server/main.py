"""`python -m remote_api`: the wiring of the API's process.

options -> control client -> TLS identity (waits for the vmkernel) -> listen -> READY -> serve
        -> SIGTERM: no new connections, streams end, requests under way get GRACE_S -> end
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from remote_api.resources.table import make_application
from remote_api.server.api_server import ApiServer
from remote_api.server.tls import IdentityUnavailableError, fetch_identity
from vmkernel.control import ControlClient
from vmkernel.service_manager import notify, passed_sockets
from vmkernel.text import CleanFormatter

__all__ = ["main"]

logger = logging.getLogger("mica.api")

DEFAULT_CONTROL = Path("/run/mica/control.sock")
IDENTITY_TIMEOUT_S = 60.0
_DESCRIPTORS = 4096
"""More than twice what `admission.Limits` lets in; each request has another one besides."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the API until it is asked to end. 0 after an orderly end, 1 if it can't start."""
    options = _options(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        stream=sys.stderr,
    )
    formatter = CleanFormatter("%(levelname)s %(name)s: %(message)s")
    logging.getLogger().handlers[0].setFormatter(formatter)
    # With --verbose it would log each request for a WebSocket, with its ticket.
    logging.getLogger("websockets").setLevel(logging.ERROR)
    _raise_descriptor_limit()
    with contextlib.suppress(KeyboardInterrupt):  # before there is a server to end in order
        return asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> int:
    control = ControlClient(options.control)
    try:
        sockets = _sockets(options)
    except OSError as error:
        return _refused(f"the API can't listen on {options.listen}: {error.strerror}")
    if not sockets:
        return _refused("no socket: start it by systemd's socket unit, or give --listen HOST:PORT")
    try:
        identity = await fetch_identity(control, options.identity_timeout)
    except IdentityUnavailableError as error:
        return _refused(str(error))
    application = make_application(control)
    server = ApiServer(application, identity)
    del identity
    application.state.connections = server.connections
    application.state.renew_identity = partial(server.renew_identity, control)
    await server.serve(sockets)
    return 0


def _refused(reason: str) -> int:
    """Report in the log, and to the parent process, why it can't start."""
    logger.error("%s", reason)
    notify(f"X_MICA_REFUSED={reason}")
    return 1


def _sockets(options: argparse.Namespace) -> list[socket.socket]:
    if options.listen_fd is not None:
        return [socket.socket(fileno=options.listen_fd)]
    return passed_sockets() if options.listen is None else [_bind(options.listen)]


def _raise_descriptor_limit() -> None:
    """Programs start with 1,024 if systemd sets no other limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m remote_api", description="The HTTPS API of Mica.", allow_abbrev=False
    )
    parser.add_argument(
        "--control", type=Path, default=DEFAULT_CONTROL, help="the vmkernel's control socket"
    )
    parser.add_argument(
        "--listen", type=_address, metavar="HOST:PORT", help="where systemd passes no socket"
    )
    parser.add_argument("--listen-fd", type=int, help="a listening socket that was inherited")
    parser.add_argument(
        "--identity-timeout",
        type=float,
        default=IDENTITY_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for the vmkernel at the start",
    )
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args(argv)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _bind(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the socket says that it is TCP; without it each answer
    # waits 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
