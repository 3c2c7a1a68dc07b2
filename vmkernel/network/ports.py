"""What a network provides for a VM: a port for each NIC, as descriptors for QEMU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vmkernel.model import NicSpec, NicStatus

__all__ = ["DEFAULT_PORT_GROUP", "NetworkPort", "PortGroup", "VmNetwork"]

DEFAULT_PORT_GROUP = "vm-network"
"""The port group of the first virtual switch, for VMs that ask for no other."""


@dataclass(frozen=True)
class PortGroup:
    """A name for a place on a virtual switch."""

    name: str
    switch: str
    vlan: int | None = None
    """The VLAN whose frames the port sees untagged; None: the switch's own untagged network."""


@dataclass
class NetworkPort:
    """One port, open; closing it removes the tap unless QEMU has the descriptor by then."""

    port_group: str
    tap: str | None = None
    tap_fd: int | None = None
    vhost_fd: int | None = None
    _closed: bool = field(default=False, repr=False)

    def close(self) -> None:
        """Close our copies of the descriptors."""
        if self._closed:
            return
        self._closed = True
        for fd in (self.tap_fd, self.vhost_fd):
            if fd is not None:
                os.close(fd)


class VmNetwork(Protocol):
    """The networks of a host, as VMs use them."""

    def port_groups(self) -> tuple[str, ...]:
        """The names that a VM's cards may ask for."""
        ...

    async def open_ports(self, vm_id: str, nics: Sequence[NicSpec]) -> list[NetworkPort]:
        """A port for each card, in order; all or none."""
        ...

    async def adopt_ports(self, vm_id: str, nics: Sequence[NicStatus]) -> None:
        """Take charge again of ports that an earlier vmkernel opened, and whose VM runs."""
        ...

    def host_macs(self) -> frozenset[str]:
        """The hardware addresses of the host itself, which no card may have."""
        ...

    async def run(self) -> None:
        """Keep all ports protected as the host's addresses change; cancel it to end."""
        ...
