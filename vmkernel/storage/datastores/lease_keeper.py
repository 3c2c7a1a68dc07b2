"""Holding the leases of datastores from the event loop, each access with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import TypeVar

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.errors import from_os_error
from vmkernel.model import ErrorCode, MicaError
from vmkernel.storage.datastores.lease import SILENT_S, LeaseHeld, LeaseLost, Leases, TakeoverMode
from vmkernel.storage.drivers.base import Attached, Report
from vmkernel.storage.errors import StorageError

__all__ = ["LeaseKeeper"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_CALL_S = 20.0
"""Longer than an NFS mount's own time-out."""
_AGAIN_S = 3.0
_RELEASE_S = 5.0


class LeaseKeeper:
    """One for all datastores; the calls for one datastore are made one after the other."""

    def __init__(self, leases: Leases, blocking: BlockingCalls) -> None:
        self._leases = leases
        self._blocking = blocking
        self._renewed_s: dict[str, float] = {}
        self._taken: dict[str, Attached] = {}
        """Where the leases are that were taken and not released, by the datastores' UUIDs."""
        self._locks: dict[str, asyncio.Lock] = {}
        self.again_s = _AGAIN_S

    async def take(
        self,
        datastore_id: str,
        attached: Attached,
        mode: TakeoverMode,
        report: Report | None = None,
    ) -> str | None:
        """Take the lease, waiting if another host may prove to be silent; returns the host that
        lost it. LeaseHeld if it can't be taken.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 2 * SILENT_S
        while True:
            try:
                async with self._lock(attached):
                    lost = await self._call(
                        datastore_id,
                        lambda: self._leases.take(attached.root, attached.uuid, mode),
                    )
            except LeaseHeld as held:
                if mode is TakeoverMode.OWN or held.alive or loop.time() > end_s:
                    raise
                if report is not None:
                    report(f"checking if {held.holder} is silent")
            else:
                self._renewed_s[attached.uuid] = loop.time()
                self._taken[attached.uuid] = attached
                return lost
            await asyncio.sleep(self.again_s)

    async def renew(self, datastore_id: str, attached: Attached) -> None:
        """Renew it; LeaseLost if another host has taken it, `unavailable` if it could not be
        written for so long that another may take it.
        """
        loop = asyncio.get_running_loop()
        try:
            async with self._lock(attached):
                if not self._leases.holds(attached.uuid):
                    return  # it was let go meanwhile
                await self._call(
                    datastore_id, lambda: self._leases.renew(attached.root, attached.uuid)
                )
        except LeaseLost:
            self._taken.pop(attached.uuid, None)
            raise
        except MicaError as error:
            last_s = self._renewed_s.setdefault(attached.uuid, loop.time())
            _log.warning("the lease of datastore %s is not renewed: %s", datastore_id, error)
            if loop.time() - last_s > SILENT_S:
                raise StorageError(
                    ErrorCode.UNAVAILABLE,
                    f"Its lease could not be renewed for {SILENT_S:g} s: {error}",
                ) from error
        else:
            self._renewed_s[attached.uuid] = loop.time()

    def has(self, attached: Attached) -> bool:
        """True from when on it is taken, until it is released or known to be lost."""
        return attached.uuid in self._taken

    async def release(self, datastore_id: str, attached: Attached) -> None:
        """Release it, as far as that is possible now."""
        self._renewed_s.pop(attached.uuid, None)
        self._taken.pop(attached.uuid, None)
        with contextlib.suppress(MicaError):
            async with self._lock(attached):
                await self._call(
                    datastore_id,
                    lambda: self._leases.release(attached.root, attached.uuid),
                    timeout_s=_RELEASE_S,
                )

    async def release_left(self, datastore_id: str, uuid: str) -> None:
        """Let go the lease of a datastore that is not available, where it was kept."""
        if (attached := self._taken.get(uuid)) is not None:
            await self.release(datastore_id, attached)

    async def release_all(self, held: Collection[tuple[str, Attached]]) -> None:
        """Release several at once."""
        await asyncio.gather(*(self.release(*item) for item in held))

    def _lock(self, attached: Attached) -> asyncio.Lock:
        return self._locks.setdefault(attached.uuid, asyncio.Lock())

    async def _call(
        self, datastore_id: str, call: Callable[[], T], *, timeout_s: float = _CALL_S
    ) -> T:
        what = f"Datastore {datastore_id}"
        try:
            return await self._blocking.run(
                f"lease-{datastore_id}", call, timeout_s=timeout_s, what=what
            )
        except OSError as error:
            raise from_os_error(error, f"The lease of {what[0].lower()}{what[1:]}") from error
