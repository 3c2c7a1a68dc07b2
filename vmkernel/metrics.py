"""The figures of the host and its VMs, joined; loaded when they are first asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from vmkernel.adapters import VmSide
from vmkernel.model import (
    Datastore,
    DatastoreSpace,
    ErrorCode,
    HostStatistics,
    MicaError,
    VmState,
    VmStatistics,
)
from vmkernel.platform.statistics import host_statistics
from vmkernel.vm.statistics import VmFigures

__all__ = ["MetricsService"]


class MetricsService:
    """See StatisticsService of control/handlers/statistics.py."""

    def __init__(
        self, vms: VmSide | None, datastores: Callable[[], Awaitable[tuple[Datastore, ...]]]
    ) -> None:
        self._vms = vms
        self._datastores = datastores
        self._figures = None if vms is None else VmFigures(vms)

    async def host(self) -> HostStatistics:
        """See StatisticsService."""
        spaces = tuple(
            DatastoreSpace(
                id=datastore.id,
                capacity_bytes=datastore.status.capacity_bytes,
                free_bytes=datastore.status.free_bytes,
            )
            for datastore in await self._datastores()
            if datastore.status.capacity_bytes
        )
        promised = 0 if self._vms is None else self._vms.promised_bytes()
        return host_statistics(promised_bytes=promised, datastores=spaces)

    async def vm(self, vm_id: str) -> VmStatistics:
        """See StatisticsService."""
        if self._figures is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no VM {vm_id}.")
        return await self._figures.one(vm_id)

    async def running_vms(self) -> tuple[VmStatistics, ...]:
        """See StatisticsService."""
        return () if self._figures is None else await self._figures.running()

    def states(self) -> dict[str, VmState]:
        """See StatisticsService."""
        return {} if self._vms is None else dict(self._vms.states())
