"""Hosted mode's network: QEMU's own user-mode stack, which needs no privilege.

The guest reaches what the user who runs Mica reaches, the services on the host's loopback (as
10.0.2.2) included; the guest can't be reached. Users who need separation run the appliance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vmkernel.model import NicSpec, NicStatus
from vmkernel.network.ports import DEFAULT_PORT_GROUP, NetworkPort

__all__ = ["UserNetwork"]


class UserNetwork:
    """One port group, and nothing to open; see VmNetwork."""

    def port_groups(self) -> tuple[str, ...]:
        return (DEFAULT_PORT_GROUP,)

    async def open_ports(self, vm_id: str, nics: Sequence[NicSpec]) -> list[NetworkPort]:  # noqa: ARG002
        return [NetworkPort(port_group=nic.port_group) for nic in nics]

    async def adopt_ports(self, vm_id: str, nics: Sequence[NicStatus]) -> None:
        """Nothing to adopt; see VmNetwork."""

    def host_macs(self) -> frozenset[str]:
        return frozenset()

    async def run(self) -> None:
        """Nothing changes; see VmNetwork."""
        await asyncio.Event().wait()
