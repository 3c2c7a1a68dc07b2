"""What virtual machines and the host use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.encode import encodable
from vmkernel.control.requests import (
    AllStatistics,
    GetAllStatistics,
    GetHostStatistics,
    GetVmStatistics,
)
from vmkernel.model import HostStatistics, VmStatistics

if TYPE_CHECKING:
    from vmkernel.metrics import MetricsService

__all__ = ["register"]


def register(dispatcher: Dispatcher, make: Callable[[], MetricsService]) -> None:
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
