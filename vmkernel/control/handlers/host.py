"""The host: what it is, its devices, its power."""

from __future__ import annotations

from typing import Protocol

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers.paging import cut
from vmkernel.control.requests import (
    DevicePage,
    GetApiInfo,
    GetHost,
    ListDevices,
    PowerHost,
)
from vmkernel.model import ApiInfo, Device, HostInfo, Operation, PowerAction

__all__ = ["ApiDescription", "HostService", "register", "register_api_info"]


class ApiDescription(Protocol):
    """What anyone may know."""

    def __call__(self) -> ApiInfo:
        """The present answer."""
        ...


class HostService(Protocol):
    """What the platform side offers to requests."""

    async def host_info(self) -> HostInfo:
        """The host as a whole."""
        ...

    async def devices(self) -> tuple[Device, ...]:
        """Physical PCI and USB devices, ordered by bus and address."""
        ...

    async def power(self, action: PowerAction, *, actor: str) -> Operation:
        """Begin to end the guests in order, then power off or reboot."""
        ...


def register_api_info(dispatcher: Dispatcher, describe: ApiDescription) -> None:
    """Serve what anyone may know."""

    async def api_info(_: GetApiInfo, __: Caller) -> ApiInfo:
        return describe()

    dispatcher.register(GetApiInfo, api_info)


def register(dispatcher: Dispatcher, host: HostService) -> None:
    """Serve the requests about the host."""

    async def get_host(_: GetHost, __: Caller) -> HostInfo:
        return await host.host_info()

    async def list_devices(request: ListDevices, _: Caller) -> DevicePage:
        items, more = cut(
            await host.devices(),
            lambda device: f"{device.bus}/{device.address}",
            request.after,
            request.limit,
        )
        return DevicePage(items=items, more=more)

    async def power(request: PowerHost, caller: Caller) -> Operation:
        return await host.power(request.action, actor=caller.actor)

    dispatcher.register(GetHost, get_host)
    dispatcher.register(ListDevices, list_devices)
    dispatcher.register(PowerHost, power)
