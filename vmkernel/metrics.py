"""Statistics of the host and its VMs together; loaded when they are first requested."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

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
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.statistics import VmMetrics

__all__ = ["MetricsService"]


class MetricsService:
    """What the host and its VMs use."""

    def __init__(
        self,
        vms: VmInventory | None,
        datastores: Callable[[], Awaitable[tuple[Datastore, ...]]],
        promised_bytes: Callable[[], int],
    ) -> None:
        self._vms = vms
        self._datastores = datastores
        self._promised_bytes = promised_bytes
        self._figures = None if vms is None else VmMetrics(vms)

    async def host(self) -> HostStatistics:
        """The host's figures."""
        spaces = tuple(
            DatastoreSpace(
                id=datastore.id,
                capacity_bytes=datastore.status.capacity_bytes,
                free_bytes=datastore.status.free_bytes,
            )
            for datastore in await self._datastores()
            if datastore.status.capacity_bytes
        )
        return host_statistics(promised_bytes=self._promised_bytes(), datastores=spaces)

    async def vm(self, vm_id: str) -> VmStatistics:
        """One VM's figures."""
        if self._figures is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no VM {vm_id}.")
        return await self._figures.one(vm_id)

    async def running_vms(self) -> tuple[VmStatistics, ...]:
        """Those of every VM that has a QEMU, by id."""
        return () if self._figures is None else await self._figures.running()

    def states(self) -> dict[str, VmState]:
        """Every VM's state."""
        return {} if self._vms is None else self._vms.states()
