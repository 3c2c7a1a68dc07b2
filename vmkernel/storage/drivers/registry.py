"""Which kinds of datastores a host has: one line per driver. Each mode loads only its own; those of
the appliance take 0.4 MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel.storage.drivers.base import DatastoreDriver
from vmkernel.storage.drivers.directory import DirectoryDriver

if TYPE_CHECKING:
    from vmkernel.storage.drivers.disk_selection import DiskChoice
    from vmkernel.storage.drivers.mounting import Mounting

__all__ = ["appliance_drivers", "hosted_drivers"]


def hosted_drivers() -> tuple[DatastoreDriver, ...]:
    """The drivers for a program on another system."""
    return (DirectoryDriver(),)


def appliance_drivers(choice: DiskChoice, mounting: Mounting) -> tuple[DatastoreDriver, ...]:
    """The drivers for a host that owns its disks."""
    from vmkernel.host.blocking_calls import BlockingCalls
    from vmkernel.host.lvm import Lvm
    from vmkernel.host.md import Mdadm
    from vmkernel.storage.drivers.local import LocalDriver
    from vmkernel.storage.drivers.lvm import LvmDriver
    from vmkernel.storage.drivers.nfs import NfsDriver
    from vmkernel.storage.drivers.raid import RaidDriver

    return (
        LocalDriver(choice, mounting),
        RaidDriver(choice, mounting, Mdadm(choice.runner)),
        LvmDriver(choice, mounting, Lvm(choice.runner)),
        NfsDriver(mounting, BlockingCalls()),
    )
