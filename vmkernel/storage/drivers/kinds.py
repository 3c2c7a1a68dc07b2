"""Which kinds of datastores a host knows; nothing of a kind is imported before it is used."""

from __future__ import annotations

from vmkernel.model import DatastoreKind
from vmkernel.storage.drivers.base import DatastoreDriver, DriverMakers
from vmkernel.storage.drivers.disk_choice import DiskChoice
from vmkernel.storage.drivers.mounting import Mounting

__all__ = ["directory_driver", "disk_drivers"]


def directory_driver() -> DriverMakers:
    """Hosted mode's."""

    def directory() -> DatastoreDriver:
        from vmkernel.storage.drivers.directory import DirectoryDriver

        return DirectoryDriver()

    return {DatastoreKind.DIRECTORY: directory}


def disk_drivers(choice: DiskChoice, mounting: Mounting) -> DriverMakers:
    """The appliance's."""

    def local() -> DatastoreDriver:
        from vmkernel.storage.drivers.local import LocalDriver

        return LocalDriver(choice, mounting)

    def raid() -> DatastoreDriver:
        from vmkernel.host.md import Mdadm
        from vmkernel.storage.drivers.raid import RaidDriver

        return RaidDriver(choice, mounting, Mdadm(choice.runner))

    def lvm() -> DatastoreDriver:
        from vmkernel.host.lvm import Lvm
        from vmkernel.storage.drivers.lvm import LvmDriver

        return LvmDriver(choice, mounting, Lvm(choice.runner))

    def nfs() -> DatastoreDriver:
        from vmkernel.host.bounded import Bounded
        from vmkernel.storage.drivers.nfs import NfsDriver

        return NfsDriver(mounting, Bounded())

    return {
        DatastoreKind.LOCAL: local,
        DatastoreKind.RAID: raid,
        DatastoreKind.LVM: lvm,
        DatastoreKind.NFS: nfs,
    }
