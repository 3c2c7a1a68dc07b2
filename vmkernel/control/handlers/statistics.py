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
    """What is offered to requests. `MetricsService` of vmkernel/metrics.py implements it."""

    async def host(self) -> HostStatistics:
        """The host's figures."""
        ...

    async def vm(self, vm_id: str) -> VmStatistics:
        """One VM's figures."""
        ...

    async def running_vms(self) -> tuple[VmStatistics, ...]:
        """Those of every VM that has a QEMU, by id."""
        ...

    def states(self) -> dict[str, VmState]:
        """Every VM's state."""
        ...


def register(dispatcher: Dispatcher, make: Callable[[], StatisticsService]) -> None:
    """Serve the requests about statistics; the service is made for the first of them."""
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
