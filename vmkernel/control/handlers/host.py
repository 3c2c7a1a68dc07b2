"""The host: what it is, its devices, its power."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import (
    GetApiInfo,
    GetHost,
    ListDevices,
    Page,
    PowerHost,
)
from vmkernel.model import ApiInfo, Device, HostStatus, Operation, PowerAction

__all__ = ["HostService", "register", "register_api_info"]


class HostService(Protocol):
    """What the platform of each mode offers to requests: the appliance's and the hosted one."""

    async def host_info(self) -> HostStatus: ...

    async def devices(self) -> tuple[Device, ...]:
        """Physical PCI and USB devices, ordered by bus and address."""
        ...

    async def power(self, action: PowerAction, *, actor: str) -> Operation:
        """Begin to stop the guests in order, then power off or reboot."""
        ...


def register_api_info(dispatcher: Dispatcher, describe: Callable[[], ApiInfo]) -> None:
    @dispatcher.handler
    async def api_info(_: GetApiInfo, __: Caller) -> ApiInfo:
        return describe()


def register(dispatcher: Dispatcher, host: HostService) -> None:
    @dispatcher.handler
    async def get_host(_: GetHost, __: Caller) -> HostStatus:
        return await host.host_info()

    @dispatcher.handler
    async def list_devices(request: ListDevices, _: Caller) -> Page:
        return await answer_from(request, await host.devices())

    @dispatcher.handler
    async def power(request: PowerHost, caller: Caller) -> Operation:
        return await host.power(request.action, actor=caller.actor)
