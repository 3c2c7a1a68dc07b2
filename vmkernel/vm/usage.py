"""Which VMs use a volume, an image or a datastore: storage asks before it deletes, resizes or
detaches."""

from __future__ import annotations

from vmkernel.vm.context import VmContext
from vmkernel.vm.datastore_use import left_running, perhaps_on
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.folders import VmFolders
from vmkernel.vm.inventory import VmInventory

__all__ = ["VmUsage"]


class VmUsage:
    """See VmUsers."""

    def __init__(self, host: VmContext, inventory: VmInventory, folders: VmFolders) -> None:
        self._host = host
        self._inventory = inventory
        self._folders = folders

    def vm_of_volume(self, volume: str) -> str | None:
        return next(iter(self._inventory.reservations.vms_of_volume(volume)), None)

    def names_volume(self, volume: str) -> bool | None:
        if self._inventory.reservations.is_stored(volume):
            return True
        if self._inventory.reservations.vms_of_volume(volume) or not self._all_known():
            return None
        return False

    def _all_known(self) -> bool:
        """True if the spec of every VM is known that this host may have."""
        storage = self._host.storage
        return (
            self._folders.loaded.issuperset(storage.known_datastores())
            and self._inventory.all_readable
            and not self._folders.clashes
        )

    def volume_is_open(self, volume: str) -> bool:
        # Not the first VM that names it only: a datastore that came later may bring another one.
        return any(
            driver.needs_disks_as_they_are and _names(driver, volume)
            for driver in self._drivers_of(volume)
        )

    def active_vm_of_volume(self, volume: str) -> str | None:
        """The VM that has the volume open, or is just getting or leaving it."""
        return next(
            (
                driver.vm_id
                for driver in self._drivers_of(volume)
                if driver.active and _names(driver, volume)
            ),
            None,
        )

    def _drivers_of(self, volume: str) -> list[VmDriver]:
        """Those of the VMs that name a volume, or are about to."""
        return [
            driver
            for vm_id in self._inventory.reservations.vms_of_volume(volume)
            if (driver := self._inventory.find(vm_id)) is not None
        ]

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        return tuple(
            f"{driver.vm_id}/{record.id}"
            for driver in sorted(self._inventory.drivers(), key=lambda driver: driver.vm_id)
            for record in driver.snapshots.values()
            if any(disk.volume == volume for disk in record.disks)
        )

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        drivers = self._inventory.drivers()
        if self._inventory.has_unusable or any(driver.broken_snapshots for driver in drivers):
            return None
        storage = self._host.storage
        if set(storage.known_datastores()) - set(storage.datastores()):
            return None
        return frozenset(
            record.tag
            for driver in drivers
            for record in driver.snapshots.values()
            if any(disk.volume == volume for disk in record.disks)
        )

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        return self._inventory.reservations.vms_of_image(image)

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        found = set()
        for vm_id, spec in self._inventory.reservations.specs():
            driver = self._inventory.find(vm_id)
            if active and not (driver and driver.holds_files):
                continue
            if perhaps_on(self._host.storage, spec, datastore):
                found.add(vm_id)
        if active:
            known = {driver.vm_id for driver in self._inventory.drivers()}
            found.update(left_running(self._host, known, datastore))
        return tuple(sorted(found))


def _names(driver: VmDriver, volume: str) -> bool:
    return any(disk.volume == volume for disk in driver.definition.spec.disks)
