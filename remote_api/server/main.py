"""`python -m remote_api`: the wiring of the API's process.

options -> control client -> TLS identity (waits for the vmkernel) -> listen -> READY -> serve
        -> SIGTERM: no new connections, streams end, requests under way get GRACE_S -> end
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import resource
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from remote_api.server import lean_uvicorn

lean_uvicorn.prepare()

import uvicorn.lifespan.off  # noqa: E402, F401 - uvicorn takes it by name
from uvicorn.config import Config  # noqa: E402
from uvicorn.server import Server  # noqa: E402

from remote_api.http.application import MAX_HEAD_BYTES, Application  # noqa: E402
from remote_api.http.exchange import ConnectionFigures  # noqa: E402
from remote_api.resources.table import make_application  # noqa: E402
from remote_api.server.admission import Admission, Peer, Stage  # noqa: E402
from remote_api.server.listener import BACKLOG, Listener  # noqa: E402
from remote_api.server.protocol import BoundedH11Protocol  # noqa: E402
from remote_api.server.tls import (  # noqa: E402
    IdentityUnavailableError,
    fetch_identity,
    fingerprint_of,
    tls_context,
)
from remote_api.server.websocket import make_protocol  # noqa: E402
from vmkernel.control import ControlClient  # noqa: E402
from vmkernel.control.requests import TlsIdentity  # noqa: E402
from vmkernel.service_manager import notify, passed_sockets, watchdog_pause_s  # noqa: E402
from vmkernel.text import CleanFormatter  # noqa: E402

__all__ = ["main"]

logger = logging.getLogger("mica.api")

DEFAULT_CONTROL = Path("/run/mica/control.sock")
IDENTITY_TIMEOUT_S = 60.0
RENEWAL_TIMEOUT_S = 3600.0
RENEWAL_WAIT_S = 15.0
GRACE_S = 5
KEEP_ALIVE_S = 15
MAX_CONSOLE_MESSAGE_BYTES = 1 << 20
_TICK_S = 1.0
_DESCRIPTORS = 4096
"""More than twice what `admission.Limits` lets in; each request has another one besides."""


class ApiServer(Server):
    """uvicorn's server, which tells systemd, wakes once a second and ends streams first."""

    def __init__(self, config: Config, application: Application, identity: TlsIdentity) -> None:
        super().__init__(config)
        self._fingerprint = fingerprint_of(identity)
        self._application = application
        self._exit = asyncio.Event()
        self.context = tls_context(identity)
        self.certificate_pem = identity.certificate_pem
        self.admission = Admission()
        self._renewals: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell the service manager.

        It stands for uvicorn's own method, which begins TLS with everybody at once.
        """
        await self.lifespan.startup()
        listener = Listener(
            sockets or [], lambda: self.context, self._make_protocol, self.admission
        )
        self.servers = [cast(asyncio.Server, listener)]
        listener.start()
        self.started = True
        gc.collect()
        gc.freeze()
        # The X_ field is for `mica serve`, which has no other way to know what is shown here.
        notify(f"READY=1\nSTATUS=Serving\nX_MICA_FINGERPRINT={self._fingerprint}")

    def _make_protocol(self, peer: Peer) -> asyncio.Protocol:
        return BoundedH11Protocol(
            config=self.config, server_state=self.server_state, app_state={"peer": peer}
        )

    def connections(self) -> ConnectionFigures:
        """How many connections there are, and why others ended."""
        admission = self.admission
        return ConnectionFigures(
            open={
                "waiting": admission.count(Stage.WAITING),
                "handshake": admission.count(Stage.HANDSHAKE),
                "stranger": admission.count(Stage.OPEN, users=False),
                "user": admission.count(Stage.OPEN, users=True),
            },
            ended=dict(admission.counters),
        )

    async def renew_identity(self, control: ControlClient) -> None:
        """Present the certificate that the vmkernel has now, if it is another one.

        Connections that were made with the one before end: idle ones at once, others with what
        they are about. If the vmkernel can't be asked now, it is asked again and again later.
        """
        task = asyncio.create_task(self._renew(control))
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)
        await asyncio.wait({task}, timeout=RENEWAL_WAIT_S)

    async def _renew(self, control: ControlClient) -> None:
        try:
            identity = await fetch_identity(control, RENEWAL_TIMEOUT_S)
        except IdentityUnavailableError as error:
            logger.error("the certificate can't be renewed: %s", error)
            return
        if identity.certificate_pem == self.certificate_pem:
            return
        self.context = tls_context(identity)
        self.certificate_pem = identity.certificate_pem
        for peer in self.admission.everyone():
            if peer.stage is Stage.HANDSHAKE:
                peer.end()
        self._application.state.end_streams()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def main_loop(self) -> None:
        """Wait for the end; the tick renews the Date header and feeds systemd's watchdog."""
        pause_s = watchdog_pause_s()
        fed_s = 0.0
        while not await self.on_tick(0):
            now_s = time.monotonic()
            if pause_s is not None and now_s - fed_s >= pause_s:
                fed_s = now_s
                notify("WATCHDOG=1")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._exit.wait()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal asks for the end."""
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._exit.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams that would go on for ever, then what uvicorn ends."""
        notify("STOPPING=1")
        self._application.state.closing.set()
        self._application.state.tickets.close()
        await super().shutdown(sockets)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the API until it is told to end. 0 after an orderly end, 1 where it can't start."""
    options = _options(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        stream=sys.stderr,
    )
    formatter = CleanFormatter("%(levelname)s %(name)s: %(message)s")
    logging.getLogger().handlers[0].setFormatter(formatter)
    # uvicorn tells of each WebSocket at the level `info`, with its ticket, and warns of whatever
    # strangers send that is no HTTP; that is counted (`/metrics`), so that it can't fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    _raise_descriptor_limit()
    with contextlib.suppress(KeyboardInterrupt):
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
    config = Config(
        application,
        loop="none",
        http=BoundedH11Protocol,
        ws=cast(type[asyncio.Protocol], make_protocol),
        ws_max_size=MAX_CONSOLE_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    server = ApiServer(config, application, identity)
    del identity
    application.state.connections = server.connections
    application.state.renew_identity = partial(server.renew_identity, control)
    await server.serve(sockets)
    return 0


def _refused(reason: str) -> int:
    """Say in the log, and to who started us, why there is no start."""
    logger.error("%s", reason)
    notify(f"X_MICA_REFUSED={reason}")
    return 1


def _sockets(options: argparse.Namespace) -> list[socket.socket]:
    if options.listen_fd is not None:
        return [socket.socket(fileno=options.listen_fd)]
    return passed_sockets() if options.listen is None else [_bind(options.listen)]


def _raise_descriptor_limit() -> None:
    """Programs start with 1,024 where systemd sets no other limit."""
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
