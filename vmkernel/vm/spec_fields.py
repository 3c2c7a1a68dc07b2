"""Whose business each field of a VM's spec is: the one table that changes of a running VM, reverts,
clones and memory images go by. A field that is missing here fails a test.

            while it runs   a revert     a clone             a memory image
  HOST      free to change  leaves it    has the same        has none of it
  PLACE     fixed           leaves it    has its own         has none of it
  IDENTITY  by hot-plug     takes then's has a new one       has it
  MACHINE   by hot-plug     takes then's has the same        has it

For `name` and `autostart`, which are HOST, a clone has its own: two VMs of one name can't be told
apart, and what starts with the host was decided for the one VM.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from vmkernel.model import AutostartSpec, VmSpec

__all__ = [
    "Business",
    "FIELDS",
    "FREE_WHILE_RUNNING",
    "after_revert",
    "for_clone",
    "without_host_fields",
]


class Business(Enum):
    """Who a field is for."""

    HOST = auto()
    """How the host treats the VM; nothing of it reaches QEMU."""
    PLACE = auto()
    """What and where the VM is on this host."""
    IDENTITY = auto()
    """What must be unique among VMs."""
    MACHINE = auto()
    """What the guest sees."""


FIELDS: Final[Mapping[str, Business]] = MappingProxyType(
    {
        "datastore": Business.PLACE,
        "name": Business.HOST,
        "description": Business.HOST,
        "labels": Business.HOST,
        "guest_os": Business.MACHINE,
        "cpus": Business.MACHINE,
        "memory_bytes": Business.MACHINE,
        "memory": Business.MACHINE,
        "firmware": Business.MACHINE,
        "clock": Business.MACHINE,
        "disks": Business.MACHINE,
        "cdroms": Business.MACHINE,
        "nics": Business.IDENTITY,
        "hot_plug": Business.MACHINE,
        "boot": Business.MACHINE,
        "display": Business.MACHINE,
        "serial_ports": Business.MACHINE,
        "tablet": Business.MACHINE,
        "keyboard": Business.MACHINE,
        "rng": Business.MACHINE,
        "guest_agent": Business.MACHINE,
        "tpm": Business.MACHINE,
        "watchdog": Business.MACHINE,
        "vsock": Business.IDENTITY,
        "cloud_init": Business.MACHINE,
        "template": Business.PLACE,
        "restart": Business.HOST,
        "autostart": Business.HOST,
        "stop": Business.HOST,
        "on_panic": Business.HOST,
    }
)


def _of(*kinds: Business) -> tuple[str, ...]:
    return tuple(name for name, kind in FIELDS.items() if kind in kinds)


FREE_WHILE_RUNNING: Final = _of(Business.HOST)
"""What can change at any time: the guest doesn't see it."""
_STAYS = _of(Business.HOST, Business.PLACE)


def after_revert(now: VmSpec, then: VmSpec) -> VmSpec:
    """The spec of a VM that goes back: what is the host's business stays as it is now."""
    return replace(then, **{name: getattr(now, name) for name in _STAYS})


def for_clone(source: VmSpec, *, datastore: str, name: str) -> VmSpec:
    """The spec of a clone, its disks still those of the source."""
    return replace(
        source,
        datastore=datastore,
        name=name,
        autostart=AutostartSpec(),
        template=False,
        nics=tuple(replace(nic, mac=None) for nic in source.nics),
        vsock=None if source.vsock is None else replace(source.vsock, cid=None),
    )


def without_host_fields(spec: VmSpec) -> VmSpec:
    """What a memory image says of its machine: it needs nothing that the guest doesn't see, and
    outlives every change of that. Nor what a guest was told at its first start."""
    empty = VmSpec(datastore=spec.datastore)
    return replace(spec, cloud_init=None, **{name: getattr(empty, name) for name in _STAYS})
