"""The appliance's network: ports on a virtual switch, which is a VLAN-filtering Linux bridge.

The bridge, its uplinks and the host's own address are networkd's, from files of the image. A
port is a tap without a name that anyone needs to remember: it lives as long as somebody has its
descriptor open, so it vanishes with its QEMU, and a restarted vmkernel has nothing to clean up.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping, Sequence

from vmkernel.host import from_os_error
from vmkernel.host.bridge_port import join_bridge, set_port_vlan
from vmkernel.host.tap import open_tap, open_vhost_net
from vmkernel.model import ErrorCode, MicaError, NicModel, NicSpec
from vmkernel.network.ports import NetworkPort, PortGroup

__all__ = ["BridgeNetwork"]

_log = logging.getLogger(__name__)


class BridgeNetwork:
    """See VmNetwork."""

    def __init__(self, port_groups: Mapping[str, PortGroup]) -> None:
        self._port_groups = dict(port_groups)
        self._warned = False

    def port_groups(self) -> tuple[str, ...]:
        """See VmNetwork."""
        return tuple(sorted(self._port_groups))

    async def open_ports(self, vm_id: str, nics: Sequence[NicSpec]) -> list[NetworkPort]:
        """See VmNetwork."""
        ports: list[NetworkPort] = []
        try:
            for index, nic in enumerate(nics):
                group = self._port_groups.get(nic.port_group)
                if group is None:
                    raise MicaError(
                        ErrorCode.UNAVAILABLE,
                        f"Card {index} of VM {vm_id} wants the port group {nic.port_group},"
                        " which doesn't exist.",
                    )
                ports.append(await self._open(vm_id, index, nic, group))
        except BaseException:
            for port in ports:
                port.close()
            raise
        return ports

    async def _open(self, vm_id: str, index: int, nic: NicSpec, group: PortGroup) -> NetworkPort:
        what = f"Card {index} of VM {vm_id} can't be put on {group.switch}"
        try:
            fd, name = open_tap()
        except OSError as error:
            raise from_os_error(error, what) from error
        port = NetworkPort(port_group=group.name, tap=name, tap_fd=fd)
        try:
            join_bridge(name, group.switch)
            if group.vlan is not None:
                await asyncio.to_thread(set_port_vlan, name, group.vlan)
            if nic.model is NicModel.VIRTIO:
                port.vhost_fd = self._open_vhost()
        except OSError as error:
            port.close()
            raise from_os_error(error, what) from error
        except BaseException:
            port.close()
            raise
        return port

    def _open_vhost(self) -> int | None:
        """Frames go through the kernel where it can; through QEMU, more slowly, where not."""
        try:
            return open_vhost_net()
        except OSError as error:
            if not self._warned:
                self._warned = True
                reason = errno.errorcode.get(error.errno or 0, str(error))
                _log.warning("vhost-net can't be used (%s): virtio cards are slower", reason)
            return None
