"""The appliance's network: ports on a virtual switch, which is a VLAN-filtering Linux bridge.

The bridge, its uplinks and the host's own address are networkd's, from files of the image. A port
is a tap whose name need not be remembered: it exists while its descriptor is open, so it vanishes
with its QEMU, and a restarted vmkernel has nothing to clean up.

Guests are untrusted. Before a tap becomes a port, it gets a filter that the kernel applies to every
frame of the guest (`frame_filter.py`); the switch learns no address from it. Filter and flags live
and die with the tap. The filter names the host's addresses, so it is renewed whenever they change,
and after a restart of the vmkernel. As every port but the uplinks is a guest's, the host hears
router advertisements and DHCP servers from uplinks only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Mapping, Sequence

from vmkernel.host import from_os_error, rtnetlink
from vmkernel.host.bridge_port import join_bridge, set_port_vlan
from vmkernel.host.port_filter import add_static_address, has_filter, set_filter
from vmkernel.host.tap import open_tap, open_vhost_net
from vmkernel.model import ErrorCode, MicaError, NicModel, NicSpec, NicStatus
from vmkernel.network.frame_filter import compile_filter
from vmkernel.network.host_identity import read_host_identity
from vmkernel.network.policy import HostIdentity, PortPolicy
from vmkernel.network.ports import NetworkPort, PortGroup

__all__ = ["BridgeNetwork"]

_log = logging.getLogger(__name__)

_BETWEEN_LOOKS_S = 0.2
"""The start of the host or of many VMs changes links dozens of times; one check costs a
millisecond."""
_GONE = (errno.ENODEV, errno.ENXIO)


class BridgeNetwork:
    def __init__(
        self,
        port_groups: Mapping[str, PortGroup],
        identity: Callable[[], HostIdentity] = read_host_identity,
    ) -> None:
        self._port_groups = dict(port_groups)
        self._identity = identity
        self._policies: dict[str, PortPolicy] = {}
        """Those of the taps that there are, by name; of some that are gone as well."""
        self._warned = False

    def port_groups(self) -> tuple[str, ...]:
        return tuple(sorted(self._port_groups))

    def host_macs(self) -> frozenset[str]:
        try:
            return self._identity().macs
        except OSError as error:
            _log.warning("the host's addresses can't be read: %s", error)
            return frozenset()

    async def open_ports(self, vm_id: str, nics: Sequence[NicSpec]) -> list[NetworkPort]:
        ports: list[NetworkPort] = []
        try:
            for index, nic in enumerate(nics):
                group = self._port_groups.get(nic.port_group)
                if group is None:
                    raise MicaError(
                        ErrorCode.UNAVAILABLE,
                        f"NIC {index} of VM {vm_id} names the port group {nic.port_group},"
                        " which doesn't exist.",
                    )
                ports.append(await self._open(vm_id, index, nic, group))
        except BaseException:
            for port in ports:
                port.close()
            raise
        return ports

    async def adopt_ports(self, vm_id: str, nics: Sequence[NicStatus]) -> None:
        for nic in nics:
            if nic.tap is None:
                continue
            policy = self._policies[nic.tap] = PortPolicy(nic.mac)
            if not await asyncio.to_thread(self._protect, nic.tap, policy):
                _log.error("NIC %s of VM %s is not filtered", nic.key, vm_id)

    async def run(self) -> None:
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        known: HostIdentity | None = None
        with contextlib.closing(rtnetlink.ChangeSocket()) as changes:
            loop.add_reader(changes.fileno(), changes.drain, changed.set)
            try:
                while True:
                    try:
                        now = self._identity()
                    except OSError as error:
                        _log.warning("the host's addresses can't be read: %s", error)
                        now = known or HostIdentity()
                    if now != known:
                        await self.renew()
                        known = now
                    await changed.wait()
                    changed.clear()
                    await asyncio.sleep(_BETWEEN_LOOKS_S)
            finally:
                loop.remove_reader(changes.fileno())

    async def renew(self) -> None:
        """Give every port the filter for the addresses that the host has now."""
        for name, policy in tuple(self._policies.items()):
            if not await asyncio.to_thread(self._protect, name, policy):
                _log.error("the filter of port %s can't be renewed", name)

    async def _open(self, vm_id: str, index: int, nic: NicSpec, group: PortGroup) -> NetworkPort:
        what = f"NIC {index} of VM {vm_id} can't be put on {group.switch}"
        try:
            fd, name = open_tap()
        except OSError as error:
            raise from_os_error(error, what) from error
        port = NetworkPort(port_group=group.name, tap=name, tap_fd=fd)
        try:
            policy = self._policy(vm_id, index, nic)
            # Noted before it is in force: addresses that change meanwhile are seen by `renew`.
            self._policies[name] = policy
            set_filter(name, compile_filter(policy, self._identity()))
            join_bridge(name, group.switch, learns=policy.forged_transmits)
            if group.vlan is not None:
                await asyncio.to_thread(set_port_vlan, name, group.vlan)
            add_static_address(name, policy.mac)
            if nic.model is NicModel.VIRTIO:
                port.vhost_fd = self._open_vhost()
        except OSError as error:
            self._policies.pop(name, None)
            port.close()
            raise from_os_error(error, what) from error
        except ValueError as error:
            self._policies.pop(name, None)
            port.close()
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"{what}: the host has too many addresses to protect them."
            ) from error
        except BaseException:
            self._policies.pop(name, None)
            port.close()
            raise
        return port

    def _policy(self, vm_id: str, index: int, nic: NicSpec) -> PortPolicy:
        """The policy of a NIC; later it will depend on port groups."""
        assert nic.mac is not None, "a stored spec names every address"
        if nic.mac in self._identity().macs:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"NIC {index} of VM {vm_id} has the MAC address {nic.mac}, which is this host's:"
                " give the NIC another one.",
            )
        return PortPolicy(nic.mac)

    def _protect(self, name: str, policy: PortPolicy) -> bool:
        """Put a port's filter in force, if it isn't; False if that fails."""
        try:
            program = compile_filter(policy, self._identity())
            if not has_filter(name, program):
                set_filter(name, program)
        except OSError as error:
            if error.errno in _GONE:
                self._policies.pop(name, None)
                return True
            _log.error("port %s: %s", name, error)
            return False
        except ValueError as error:
            _log.error("port %s: %s", name, error)
            return False
        return True

    def _open_vhost(self) -> int | None:
        """Frames go through the kernel if possible; otherwise through QEMU, which is slower."""
        try:
            return open_vhost_net()
        except OSError as error:
            if not self._warned:
                self._warned = True
                reason = errno.errorcode.get(error.errno or 0, str(error))
                _log.warning("vhost-net can't be used (%s): virtio NICs are slower", reason)
            return None
