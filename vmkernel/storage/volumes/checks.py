"""Whether a volume can be used, checked in one place for everything that reads or changes one."""

from __future__ import annotations

from vmkernel.model import ErrorCode
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.errors import StorageError
from vmkernel.storage.records import VolumeRecord
from vmkernel.storage.usage import VmUsage

__all__ = ["VolumeChecks"]


class VolumeChecks:
    """Looks volumes up and refuses those that can't be used now."""

    def __init__(self, catalogue: Catalogue, usage: VmUsage) -> None:
        self._catalogue = catalogue
        self._usage = usage

    def sound(self, volume_id: str) -> tuple[VolumeEntry, VolumeRecord]:
        """A volume with a description and a file, in one place; else `conflict` with the reason."""
        entry = self._catalogue.volume(volume_id)
        fault = self._catalogue.fault(entry)
        if fault is not None or entry.record is None:
            raise StorageError(ErrorCode.CONFLICT, f"Volume {volume_id} can't be used: {fault}.")
        self.refuse_undecided(entry.record)
        return entry, entry.record

    def refuse_undecided(self, record: VolumeRecord) -> None:
        """Raise `conflict` if the last step of a move was interrupted and the other datastore is
        missing: the volume may be there by now, and the one here void.
        """
        if record.moving_to is not None:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"Volume {record.id} was being moved to a datastore that is missing: reattach "
                "that datastore, or delete it from this host.",
            )

    def at_rest(self, volume_id: str) -> tuple[VolumeEntry, VolumeRecord]:
        """A sound volume that no VM has open; else `in-use`."""
        found = self.sound(volume_id)
        self.refuse_open(volume_id)
        return found

    def described(self, volume_id: str) -> VolumeEntry:
        """A volume that no VM has open and whose description can be read, whatever the state of its
        file.
        """
        entry = self._catalogue.volume(volume_id)
        if entry.record is None:
            raise StorageError(
                ErrorCode.CONFLICT, f"Volume {volume_id} can't be used: {entry.reason}."
            )
        self.refuse_open(volume_id)
        return entry

    def checkable(self, volume_id: str) -> VolumeEntry:
        """A described volume that is in one place."""
        entry = self.described(volume_id)
        assert entry.record is not None
        self.refuse_undecided(entry.record)
        return entry

    def refuse_open(self, volume_id: str) -> None:
        """Raise `in-use` if a VM, a backup or a snapshot is using a volume."""
        if self._usage.vms.volume_is_open(volume_id):
            raise StorageError(
                ErrorCode.IN_USE,
                f"VM {self._usage.vms.vm_of_volume(volume_id)} has volume {volume_id} open, "
                "or a backup or snapshot uses it: shut the VM down, or end that, first.",
            )
