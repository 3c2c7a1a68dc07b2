"""The server: it listens, presents the certificate, feeds the watchdog, and ends in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Sequence

from remote_api.http.application import Application
from remote_api.http.exchange import ConnectionFigures
from remote_api.server.admission import Admission, Peer, Stage
from remote_api.server.connection import Connections
from remote_api.server.http11 import HttpConnection
from remote_api.server.listener import Listener
from remote_api.server.tls import (
    IdentityUnavailableError,
    fetch_identity,
    fingerprint_of,
    tls_context,
)
from vmkernel.control import ControlClient
from vmkernel.control.requests import TlsIdentity
from vmkernel.service_manager import feed_watchdog, notify

__all__ = ["ApiServer"]

logger = logging.getLogger("mica.api")

RENEWAL_TIMEOUT_S = 3600.0
RENEWAL_WAIT_S = 15.0
GRACE_S = 5.0
"""How long requests in progress may take once the server is asked to end."""


class ApiServer:
    """Serves an application with a TLS identity until it is asked to end."""

    def __init__(self, application: Application, identity: TlsIdentity) -> None:
        self._application = application
        self._fingerprint = fingerprint_of(identity)
        self._context = tls_context(identity)
        self._certificate_pem = identity.certificate_pem
        self._admission = Admission()
        self._connections = Connections(application)
        self._renewals: set[asyncio.Task[None]] = set()

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Serve until SIGTERM or SIGINT; then end what is in progress within GRACE_S."""
        told_to_end = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
        listener = Listener(sockets, lambda: self._context, self._connection_of, self._admission)
        listener.start()
        gc.collect()
        gc.freeze()
        # The X_ field is for `mica serve`, which has no other way to know what is shown here.
        notify(f"READY=1\nSTATUS=Serving\nX_MICA_FINGERPRINT={self._fingerprint}")
        watchdog = asyncio.create_task(feed_watchdog())
        try:
            await told_to_end.wait()
        finally:
            watchdog.cancel()
            await asyncio.gather(watchdog, return_exceptions=True)
        notify("STOPPING=1")
        self._application.state.closing.set()
        self._application.state.tickets.close()
        listener.close()
        await self._connections.end(GRACE_S)
        await listener.wait_closed()

    def connections(self) -> ConnectionFigures:
        """How many connections there are, and why others ended."""
        admission = self._admission
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
        if identity.certificate_pem == self._certificate_pem:
            return
        self._context = tls_context(identity)
        self._certificate_pem = identity.certificate_pem
        for peer in self._admission.everyone():
            if peer.stage is Stage.HANDSHAKE:
                peer.end()
        self._application.state.end_streams()
        self._connections.shutdown()

    def _connection_of(self, peer: Peer) -> HttpConnection:
        return HttpConnection(self._connections, peer)
