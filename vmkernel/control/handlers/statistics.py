"""What virtual machines and the host use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.encode import encodable
from vmkernel.control.requests import (
    AllStatistics,
    GetAllStatistics,
    GetHostStatistics,
    GetVmStatistics,
)
from vmkernel.model import HostStatistics, VmState, VmStatistics

__all__ = ["StatisticsService", "register"]


class StatisticsService(Protocol):
    """Implemented by `MetricsService` of vmkernel/metrics.py."""

    async def host(self) -> HostStatistics: ...

    async def vm(self, vm_id: str) -> VmStatistics: ...

    async def running_vms(self) -> tuple[VmStatistics, ...]:
        """The statistics of every VM that has a QEMU process, by id."""
        ...

    def states(self) -> dict[str, VmState]: ...


def register(dispatcher: Dispatcher, make: Callable[[], StatisticsService]) -> None:
    """The service is made when it is first needed."""
    service = cache(make)

    @dispatcher.handler
    async def get_vm(request: GetVmStatistics, _: Caller) -> VmStatistics:
        return await service().vm(request.id)

    @dispatcher.handler
    async def get_host(_: GetHostStatistics, __: Caller) -> HostStatistics:
        return await service().host()

    @dispatcher.handler
    async def get_all(_: GetAllStatistics, __: Caller) -> AllStatistics:
        figures = service()
        vms = encodable(await figures.running_vms())
        return AllStatistics(host=await figures.host(), states=figures.states(), vms=vms)
