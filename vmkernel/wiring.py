"""Where the objects of a vmkernel are joined; with the modes' adapters, the only place that knows
them all.

phases of a start            if it fails
  programs                   the start is refused: no VM could run (hosted mode)
  state                      nothing: a host without its state runs, and says so
  settings                   nothing: a bad mica.toml is a finding
  identity                   nothing
  storage                    a datastore that can't be had is `missing` or `failed`
  vms                        a VM that can't be read is `unusable`
  control                    the process ends: no request could reach it
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from vmkernel.adapters import Adapters
from vmkernel.auth import AccessService, Audit
from vmkernel.auth.claim_file import ClaimFile
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers import (
    access,
    backups,
    clones,
    console,
    datastores,
    disks,
    host,
    images,
    operations,
    snapshots,
    statistics,
    uploads,
    vm,
    volumes,
    webhooks,
)
from vmkernel.control.server import ControlServer, bind_socket
from vmkernel.events import EventBus
from vmkernel.model import ApiInfo, Finding, HostMode, Role
from vmkernel.operations import Journal, OperationRegistry
from vmkernel.options import Options
from vmkernel.platform import PlatformContext
from vmkernel.service_manager import feed_watchdog, notify, passed_sockets
from vmkernel.state import HostConfig, StateLog, StateStore
from vmkernel.state.identity import fingerprint, new_identity
from vmkernel.storage.service import StorageService
from vmkernel.text import clean
from vmkernel.version import __version__
from vmkernel.vm.side import VmSide
from vmkernel.webhooks import WebhookService
from vmkernel.webhooks.sender import Sender

if TYPE_CHECKING:
    from vmkernel.metrics import MetricsService

__all__ = ["Vmkernel", "adapters_of"]

_log = logging.getLogger(__name__)

Phase = tuple[str, Callable[[], Awaitable[None]]]


def adapters_of(options: Options) -> Adapters:
    """The adapters of the mode; each mode imports only its own."""
    if options.mode is HostMode.HOSTED:
        from vmkernel.adapters_hosted import HostedAdapters

        return HostedAdapters(options)
    from vmkernel.adapters_appliance import ApplianceAdapters

    return ApplianceAdapters(options)


class Vmkernel:
    """One vmkernel: `run` it until it is asked to stop."""

    _store: StateStore
    _access: AccessService
    _storage: StorageService
    _vms: VmSide | None = None

    def __init__(
        self, options: Options, choose: Callable[[Options], Adapters] = adapters_of
    ) -> None:
        self._options = options
        self._bus = EventBus()
        self._operations = OperationRegistry(
            self._bus, journal=Journal(options.run_dir / "operations.jsonl")
        )
        self._dispatcher = Dispatcher()
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._started_s = time.monotonic()
        self._ending = contextlib.AsyncExitStack()
        self._adapters = choose(options)

    def stop(self) -> None:
        """Ask it to end; VMs run on, unless it was started with `--stop-vms`.

        Asked a second time, it powers off the VMs that it still waits for.
        """
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    async def run(self) -> None:
        """Start phase by phase, serve, and end in the opposite order."""
        async with self._ending:
            self._ending.callback(self._adapters.close)
            self._own("platform", self._adapters.platform.run())
            self._own("watchdog", feed_watchdog())
            phases: list[Phase] = [
                ("programs", self._adapters.check_programs),
                ("state", self._open_state),
                ("settings", self._apply_settings),
                ("identity", self._make_identity),
                ("storage", self._start_storage),
                ("vms", self._start_vms),
                ("control", self._serve),
            ]
            for name, phase in phases:
                notify(f"STATUS=starting: {name}")
                await phase()
                _log.info("%s: ready at %.2f s", name, time.monotonic() - self._started_s)
            await self._stop.wait()
            notify("STOPPING=1", "STATUS=ending")
            timeout_s = await self._adapters.guests_end_with_us()
            if timeout_s is not None and self._vms is not None:
                await self._end_guests(self._vms, timeout_s)

    async def _end_guests(self, vms: VmSide, timeout_s: float) -> None:
        """Shut the guests down; shows which are still running, and can be hurried."""

        def tell(ends: str) -> None:
            if names := ", ".join(vms.power.active()):
                notify(f"STATUS={ends}: {names}")

        tell(f"waiting up to {timeout_s:g} s for guests to shut down")
        asked = asyncio.create_task(
            vms.power.shutdown_all(
                timeout_s=timeout_s,
                force=True,
                on_progress=lambda _: tell("waiting for guests to shut down"),
            )
        )
        forced = asyncio.create_task(self._force.wait())
        await asyncio.wait((asked, forced), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not asked.done():
            tell("powering guests off")
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await vms.power.shutdown_all(timeout_s=0.0, force=True)
        elif not asked.cancelled():
            asked.result()

    # --- phases -------------------------------------------------------------------------------

    async def _open_state(self) -> None:
        self._options.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._operations.load()
        opened = await self._adapters.open_medium()
        log = StateLog(opened.medium) if opened.medium is not None else None
        self._store = StateStore(log, shadow=opened.shadow)
        self._store.open(opened.reason)

    async def _apply_settings(self) -> None:
        await self._adapters.apply_settings(self._store, self._bus)

    async def _make_identity(self) -> None:
        make_identity = partial(new_identity, self._adapters.runner)
        await self._store.ensure_identity(make_identity)
        file = ClaimFile(self._options.run_dir / "claim.json")
        code = file.previous() if self._adapters.keeps_claim_code else None
        self._access = AccessService(self._store, self._bus, claim_code=code)

        def show(config: HostConfig) -> None:
            shown = fingerprint(config.tls.certificate_pem) if config.tls else ""
            file.show(self._access.claim_code, shown)

        show(self._store.config)
        self._store.on_change(show)
        hooks = WebhookService(
            self._store, self._bus, Sender(self._adapters.workers).send, self._options.run_dir
        )
        self._ending.push_async_callback(hooks.stop)
        hooks.start()
        webhooks.register(self._dispatcher, hooks)
        host.register_api_info(self._dispatcher, self._api_info)
        access.register(self._dispatcher, self._access, self._store, self._bus, make_identity)
        operations.register(self._dispatcher, self._operations)
        self._bus.objects.add("operation", self._operations.get)
        self._bus.objects.add("token", self._access.get, role=Role.ADMIN)

    async def _start_storage(self) -> None:
        self._storage = self._adapters.make_storage(self._store, self._operations, self._bus)
        self._ending.push_async_callback(self._storage.stop)
        await self._storage.start()
        disks.register(self._dispatcher, self._storage)
        datastores.register(self._dispatcher, self._storage)
        images.register(self._dispatcher, self._storage)
        uploads.register(self._dispatcher, self._storage)
        volumes.register(self._dispatcher, self._storage)
        self._bus.objects.add("image", self._storage.images.get)
        self._bus.objects.add_later("volume", self._storage.volumes.get)
        self._bus.objects.add_later("datastore", self._storage.datastore_views.get)

    async def _start_vms(self) -> None:
        self._vms = self._adapters.make_vms(self._storage, self._operations, self._bus)
        if self._vms is not None:
            self._storage.usage.bind(self._vms.usage)
            self._storage.usage.bind_live(self._vms.live_disks)
            self._ending.push_async_callback(self._vms.stop)
            self._ending.push_async_callback(self._storage.monitor.release_idle)
            self._bus.objects.add("vm", self._vms.inventory.get, conceal=vm.shown)
            await self._vms.start()
            vm.register(self._dispatcher, self._vms.inventory, self._vms.changes, self._vms.power)
            clones.register(self._dispatcher, self._vms.clones)
            snapshots.register(self._dispatcher, self._vms.snapshots)
            console.register(self._dispatcher, self._vms.consoles)
            make_scratch = self._storage.volumes.make_scratch
            backups.register(
                self._dispatcher, partial(self._vms.backups, make_scratch), self._storage
            )
        statistics.register(self._dispatcher, self._figures)
        platform = self._adapters.platform
        platform.bind(
            PlatformContext(
                store=self._store,
                events=self._bus,
                operations=self._operations,
                claim_code=lambda: self._access.claim_code,
                findings=self._findings,
                guests=self._vms.power if self._vms else None,
                accelerator=lambda: self._vms.host.known_accelerator() if self._vms else None,
                accelerator_reason=lambda: self._vms.host.no_kvm_reason() if self._vms else None,
            )
        )
        host.register(self._dispatcher, platform)

    async def _serve(self) -> None:
        listener = self._listener()
        self._ending.callback(listener.close)
        self._ending.push_async_callback(self._operations.close)
        audit = Audit(self._bus)
        access.register_audit(self._dispatcher, audit.trail)
        server = ControlServer(
            self._dispatcher,
            self._access,
            self._bus,
            allowed_uids=self._options.allowed_uids,
            audit=audit,
        )
        self._own("control", server.serve(listener))
        self._ending.callback(self._bus.close)  # ends the subscriptions, so that serving can end
        self._adapters.platform.serving()
        notify("READY=1", f"STATUS=version {__version__}")

    # --- parts --------------------------------------------------------------------------------

    def _own(self, name: str, work: Awaitable[None]) -> None:
        """Run something until the end; its failure is the end."""

        async def guard() -> None:
            try:
                await work
            except Exception:
                _log.exception("%s failed; ending", name)
                self._stop.set()

        task = asyncio.create_task(guard(), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if inspect.iscoroutine(work):
                work.close()  # it was not begun if the start failed at once

        self._ending.push_async_callback(end)

    def _figures(self) -> MetricsService:
        from vmkernel.metrics import MetricsService

        vms = self._vms
        return MetricsService(
            vms.inventory if vms else None,
            self._storage.datastore_views.list,
            (lambda: vms.host.admission.promised_bytes) if vms else (lambda: 0),
        )

    def _findings(self) -> Iterator[Finding]:
        """Cleaned: they name what others called their datastores, records and VMs."""
        found = [*self._store.findings(), *self._storage.findings()]
        if self._vms is not None:
            found += self._vms.findings()
        for finding in found:
            subject = None if finding.subject is None else clean(finding.subject)
            yield replace(finding, message=clean(finding.message, 1000), subject=subject)

    def _api_info(self) -> ApiInfo:
        return ApiInfo(
            product="Mica",
            version=__version__,
            api_version="v1",
            mode=self._options.mode,
            claimed=self._access.claimed,
            capabilities=self._dispatcher.names,
        )

    def _listener(self) -> socket.socket:
        passed = passed_sockets()
        if passed:
            for extra in passed[1:]:
                extra.close()
            return passed[0]
        self._options.control.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return bind_socket(self._options.control)
