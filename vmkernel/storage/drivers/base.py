"""What a kind of datastore must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from vmkernel.model import (
    DatastoreKind,
    DatastoreMember,
    DatastoreSpec,
    ErrorCode,
    NfsVersion,
    RaidLevel,
    RaidStatus,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.errors import StorageError

__all__ = ["Attached", "Consent", "DatastoreDriver", "DriverMakers", "Look", "Report"]

Report = Callable[[str], None]
"""Called with the name of each stage."""


@dataclass(frozen=True)
class Consent:
    """What the administrator allows."""

    wipe_serials: tuple[str, ...] = ()
    """The ids of the disks whose contents may be destroyed."""
    adopt: bool = False
    """Only take over what is there; make nothing."""
    take_over: bool = False
    """Take it even from another Mica that holds it; that one loses it."""


@dataclass(frozen=True)
class Attached:
    """A datastore whose tree can be used."""

    root: Path
    uuid: str
    device: str | None = None
    filesystem: str | None = None
    nfs_version: NfsVersion | None = None
    partition_uuid: str | None = None
    group: str | None = None
    """`raid`: the array's UUID; `lvm`: the volume group's name."""
    disks: tuple[str, ...] | None = None
    """The ids of the disks as they were found."""
    raid_level: RaidLevel | None = None
    remote: bool = False
    """True where any access may wait for a network."""

    @property
    def shared(self) -> bool:
        """True where several hosts may have it mounted at once, without harm to its files."""
        return self.remote or self.device is None


@dataclass(frozen=True)
class Look:
    """What a datastore's disks do now."""

    members: tuple[DatastoreMember, ...] = ()
    raid: RaidStatus | None = field(default=None)


class DatastoreDriver:
    """One kind of datastore. Methods raise MicaError; DatastoreMissing where it may come back.

    What a kind can't do is refused as `unsupported` here.
    """

    @property
    def kind(self) -> DatastoreKind:
        """The kind that it serves."""
        raise NotImplementedError

    async def check(self, spec: DatastoreSpec, consent: Consent) -> None:
        """Refuse at once what `create` would refuse; nothing is changed."""
        raise NotImplementedError

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, consent: Consent, report: Report
    ) -> Attached:
        """Make the datastore, or adopt the one that is there, and attach it."""
        raise NotImplementedError

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Bring back a datastore that is known."""
        raise NotImplementedError

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None:
        """Let go of it; `in-use` where something is open there, unless `force`."""
        raise NotImplementedError

    async def present(self, stored: StoredDatastore) -> bool:
        """True while what it lies on is there; cheap enough to ask every few seconds."""
        raise NotImplementedError

    async def look(self, stored: StoredDatastore) -> Look:
        """What its disks do; cheap, and never raises."""
        del stored
        return Look()

    def device_nodes(self, stored: StoredDatastore) -> tuple[str, ...]:
        """The device nodes of the disks that it lies on, as far as they are there."""
        del stored
        return ()

    async def release_strays(self) -> None:
        """Let go of what a crash has left running that is no datastore; disks are free then.

        The caller holds the lock of the disks.
        """

    async def grow(self, stored: StoredDatastore, attached: Attached, report: Report) -> None:
        """Take the space that the disks have gained."""
        del attached, report
        self._refuse(stored, "doesn't grow by itself")

    async def add_disk(
        self, stored: StoredDatastore, attached: Attached, disk: str, consent: Consent
    ) -> DatastoreSpec:
        """Take one disk more; the spec as it is then."""
        del attached, disk, consent
        self._refuse(stored, "takes no further disk")

    async def replace_disk(
        self,
        stored: StoredDatastore,
        attached: Attached,
        old: str,
        new: str,
        consent: Consent,
    ) -> DatastoreSpec:
        """Put a disk in the place of another; the spec as it is then."""
        del attached, old, new, consent
        self._refuse(stored, "has no redundancy to replace a disk from")

    def _refuse(self, stored: StoredDatastore, what: str) -> NoReturn:
        raise StorageError(
            ErrorCode.UNSUPPORTED, f"Datastore {stored.id} is of kind {self.kind}: it {what}."
        )


DriverMakers = Mapping[DatastoreKind, Callable[[], DatastoreDriver]]
"""The kinds that a host knows; a driver is made, and its module imported, at its first use."""
