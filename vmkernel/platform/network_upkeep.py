"""The management network while the host runs: configured once, then its addresses are followed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from vmkernel.model import MicaError
from vmkernel.platform.machine_access import MachineAccess
from vmkernel.platform.management_network import ManagementNetwork, choose_mac, wired_ports
from vmkernel.state import NetworkSettings, StateStore

__all__ = ["NetworkUpkeep"]

_log = logging.getLogger(__name__)

_PORT_WAIT_S = 5.0
_PORT_LOOK_S = 0.1
_SETTLE_S = 0.2
"""Links and addresses change in groups."""
_WAITS_FOR_NETWORKD_S = 2.0


class NetworkUpkeep:
    """`stage` says a line on the consoles; `changed` is told the addresses after each change."""

    def __init__(
        self,
        machine: MachineAccess,
        network: ManagementNetwork,
        *,
        stage: Callable[[str], None],
        changed: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._machine = machine
        self._network = network
        self._stage = stage
        self._changed = changed
        self._links_changed = asyncio.Event()

    async def run(self, store: StateStore | None) -> None:
        """Configure the host's own interface, then follow addresses and links until cancelled. The
        network starts with DHCP if there is no state."""
        settings = store.config.network if store else NetworkSettings()
        try:
            await self._network.apply(settings, await self._management_mac(store))
        except MicaError as error:
            self._stage(f"THE NETWORK CAN'T BE CONFIGURED: {error}")
        loop = asyncio.get_running_loop()
        with contextlib.closing(self._machine.link_changes()) as changes:
            loop.add_reader(changes.fileno(), changes.drain, self._links_changed.set)
            try:
                while True:
                    self._network.fix_address()
                    self._changed(self._machine.addresses(self._network.interfaces))
                    self._network.sync_resolver()
                    await self._links_changed.wait()
                    await asyncio.sleep(_SETTLE_S)
                    self._links_changed.clear()
                    self._network.sync_resolver()
                    loop.call_later(_WAITS_FOR_NETWORKD_S, self._network.sync_resolver)
            finally:
                loop.remove_reader(changes.fileno())

    async def _management_mac(self, store: StateStore | None) -> str | None:
        """The address to be known by: the remembered one, or the first port's, then remembered."""
        remembered = store.config.management_mac if store else None
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PORT_WAIT_S
        ports = wired_ports(self._machine.sys)
        while clock() < deadline and (remembered or "") not in ports:
            if ports and remembered is None:
                break
            await asyncio.sleep(_PORT_LOOK_S)
            ports = wired_ports(self._machine.sys)
        mac = choose_mac(ports, remembered)
        if mac is None:
            self._stage("no wired network port was found yet")
        elif remembered is None and store is not None:
            try:
                await store.update(
                    lambda config: msgspec.structs.replace(config, management_mac=mac)
                )
            except MicaError as error:
                _log.warning("the management address is not remembered: %s", error)
        return mac
