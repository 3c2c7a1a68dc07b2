"""Where the objects of a vmkernel are chosen and joined; the only place that knows them all.

phases of a start            what fails here
  state                      nothing: a host without its state runs, and says so
  platform (settings)        a bad mica.toml is a finding
  identity                   nothing
  storage                    a datastore that can't be had is `missing` or `failed`
  vms                        a VM that can't be read is `unusable`
  control                    the process ends: nobody could ask it anything
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable

from vmkernel.auth import AccessService
from vmkernel.auth.claim_file import ClaimFile
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers import access as access_handlers
from vmkernel.control.handlers import host as host_handlers
from vmkernel.control.handlers import operations as operation_handlers
from vmkernel.control.server import ControlServer, bind_socket
from vmkernel.events import EventBus
from vmkernel.host.notify import inherited_sockets, notify
from vmkernel.model import ApiInfo, Finding, HostMode
from vmkernel.operations import OperationRegistry
from vmkernel.options import Options
from vmkernel.state import StateLog, StateStore
from vmkernel.state.identity import fingerprint
from vmkernel.state.media import FileMedium, PartitionMedium
from vmkernel.version import __version__

__all__ = ["Vmkernel"]

_log = logging.getLogger(__name__)

Phase = tuple[str, Callable[[], Awaitable[None]]]


class Vmkernel:
    """One vmkernel: `run` it until it is told to stop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._bus = EventBus()
        self._operations = OperationRegistry(self._bus)
        self._dispatcher = Dispatcher()
        self._stop = asyncio.Event()
        self._started_s = time.monotonic()
        self._finding_sources: list[Callable[[], Iterable[Finding]]] = []

    def stop(self) -> None:
        """Ask it to end; VMs run on."""
        self._stop.set()

    async def run(self) -> None:
        """Start phase by phase, serve, and end in the opposite order."""
        async with contextlib.AsyncExitStack() as ending:
            phases: list[Phase] = [
                ("state", self._open_state),
                ("identity", self._make_identity),
            ]
            for name, phase in phases:
                notify(f"STATUS=starting: {name}")
                await phase()
                _log.info("%s: ready at %.2f s", name, time.monotonic() - self._started_s)
            listener = self._listener()
            ending.callback(listener.close)
            ending.push_async_callback(self._operations.close)
            ending.callback(self._bus.close)
            server = ControlServer(
                self._dispatcher,
                self._access,
                self._bus,
                allowed_uids=self._options.allowed_uids,
            )
            serving = asyncio.create_task(server.serve(listener))
            watchdog = asyncio.create_task(_feed_watchdog())
            notify("READY=1", f"STATUS=version {__version__}")
            _log.info("answering at %s", listener.getsockname())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1", "STATUS=ending; VMs run on")
            for task in (serving, watchdog, stopping):
                task.cancel()
            results = await asyncio.gather(serving, watchdog, stopping, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    # --- phases -------------------------------------------------------------------------------

    async def _open_state(self) -> None:
        options = self._options
        options.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        log: StateLog | None = None
        reason = "no state partition was found"
        try:
            if options.mode is HostMode.HOSTED:
                assert options.state_dir is not None
                options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                log = StateLog(FileMedium(options.state_dir / "state.log"))
            elif options.state_device is not None:
                log = StateLog(PartitionMedium(options.state_device))
        except OSError as error:
            if options.mode is HostMode.HOSTED:
                raise
            reason = f"the state partition can't be opened ({error.strerror})"
        shadow = options.run_dir / "state-copy" if options.mode is HostMode.APPLIANCE else None
        self._store = StateStore(log, shadow=shadow)
        self._store.open(reason)
        self._finding_sources.append(self._store.findings)

    async def _make_identity(self) -> None:
        material = await self._store.ensure_identity()
        shown = fingerprint(material.certificate_pem)
        claim_file = ClaimFile(self._options.run_dir / "claim.json")
        keep = self._options.mode is HostMode.APPLIANCE
        self._access = AccessService(
            self._store, self._bus, claim_code=claim_file.previous() if keep else None
        )
        claim_file.show(self._access.claim_code, shown)
        self._store.on_change(lambda _: claim_file.show(self._access.claim_code, shown))
        host_handlers.register_api_info(self._dispatcher, self._api_info)
        access_handlers.register(self._dispatcher, self._access, self._store)
        operation_handlers.register(self._dispatcher, self._operations)

    # --- parts --------------------------------------------------------------------------------

    def _api_info(self) -> ApiInfo:
        return ApiInfo(
            product="Mica",
            version=__version__,
            api_version="v1",
            mode=self._options.mode,
            claimed=self._access.claimed,
            capabilities=tuple(sorted(t.__name__ for t in self._dispatcher.handled)),
        )

    def _listener(self) -> socket.socket:
        passed = inherited_sockets()
        if passed:
            for extra in passed[1:]:
                extra.close()
            return passed[0]
        self._options.control.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return bind_socket(self._options.control)


async def _feed_watchdog() -> None:
    """Tell systemd that the event loop turns, at a third of the time it allows."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    if not allowed.isdigit():
        await asyncio.Event().wait()
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(allowed) / 3e6)
