"""The interface of a kind of datastore, which is all that the rest of storage knows of it.

A driver is one module that names its kind, whose fields the model has in KIND_FIELDS, and one line
in `registry.py`. What it observes of its disks or its server reaches the API, the findings and the
events through its own `Observation`, so no other code checks a datastore's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn

import msgspec

from vmkernel.model import (
    COMMON_FIELDS,
    KIND_FIELDS,
    DatastoreKind,
    DatastoreMember,
    DatastoreSpec,
    DatastoreStatus,
    ErrorCode,
    Filesystem,
    Finding,
    MicaError,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.errors import StorageError

__all__ = [
    "Attached",
    "CreateOptions",
    "DatastoreDriver",
    "News",
    "Observation",
    "Report",
    "as_found",
]

Report = Callable[[str], None]
"""Called with the name of each stage."""


@dataclass(frozen=True)
class CreateOptions:
    """What the administrator permits."""

    wipe_serials: tuple[str, ...] = ()
    """The ids of the disks whose content may be destroyed."""
    adopt: bool = False
    """Only adopt an existing datastore; make none."""
    take_over: bool = False
    """Take it even if another host holds its lease; that host loses it."""


@dataclass(frozen=True)
class Attached:
    """A datastore whose tree can be used."""

    root: Path
    uuid: str
    device: str | None = None
    filesystem: str | None = None
    backing: str | None = None
    """A datastore whose tree can be used."""
    spec: DatastoreSpec | None = None
    """How the driver finds it again (`StoredDatastore.backing`)."""


@dataclass(frozen=True)
class News:
    """An event about a datastore."""

    kind: str
    text: str
    data: Mapping[str, str | int | float]


@dataclass(frozen=True)
class Observation:
    """The present state of a datastore's disks or server; a driver that sees more has its own
    subclass.
    """

    members: tuple[DatastoreMember, ...] = ()

    def complete(self, status: DatastoreStatus) -> DatastoreStatus:
        """The status with what was observed."""
        return msgspec.structs.replace(status, members=self.members)

    def findings(self, datastore_id: str) -> Iterator[Finding]:
        """What needs attention about it."""
        del datastore_id
        yield from ()

    def news(self, datastore_id: str, before: Observation) -> Iterator[News]:
        """The events since the previous observation; if there was none, `before` is a plain
        Observation.
        """
        del datastore_id, before
        yield from ()


class DatastoreDriver:
    """One kind of datastore. Methods raise MicaError; DatastoreMissing if it may come back.

    What a kind can't do is refused here as `unsupported`.
    """

    kind: ClassVar[DatastoreKind]
    remote: ClassVar[bool] = False
    """True if any access may wait for a network."""
    shared: ClassVar[bool] = False
    """True if several hosts may mount it at once without harm to its files."""

    def check_fields(self, spec: DatastoreSpec) -> None:
        """`invalid` at the first field that has no meaning for this kind."""
        blank = DatastoreSpec(kind=spec.kind)
        for name in DatastoreSpec.__struct_fields__:
            if name in COMMON_FIELDS or name in KIND_FIELDS[self.kind]:
                continue
            if getattr(spec, name) != getattr(blank, name):
                raise MicaError.field(
                    f"/spec/{name}", f"It does not apply to a datastore of kind {spec.kind}."
                )

    async def check(self, spec: DatastoreSpec, options: CreateOptions) -> None:
        """Refuse at once what `create` would refuse; changes nothing."""
        raise NotImplementedError

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, report: Report
    ) -> Attached:
        """Make the datastore, or adopt an existing one, and attach it."""
        raise NotImplementedError

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Attach a known datastore again."""
        raise NotImplementedError

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None:
        """Detach it; `in-use` if something is open there, unless `force`."""
        raise NotImplementedError

    async def present(self, stored: StoredDatastore) -> bool:
        """True while its disks or server are there; cheap enough to call every few seconds."""
        raise NotImplementedError

    async def observe(self, stored: StoredDatastore) -> Observation:
        """The state of an attached datastore's disks; cheap, and never raises."""
        del stored
        return Observation()

    def disks_of(self, spec: DatastoreSpec) -> tuple[str, ...]:
        """The ids of the disks that a spec names."""
        del spec
        return ()

    def device_nodes(self, stored: StoredDatastore) -> tuple[str, ...]:
        """The device nodes of its disks, as far as they are present."""
        del stored
        return ()

    def recognises(self, partition_type: str, filesystem: str | None) -> bool:
        """True if a partition of this GPT type with this signature is (a part of) a datastore of
        this kind, which could be adopted."""
        del partition_type, filesystem
        return False

    async def release_strays(self) -> None:
        """Stop what a crash has left running that is no datastore, so that its disks are free.

        The caller holds the lock of the disks.
        """

    async def grow(self, stored: StoredDatastore, attached: Attached, report: Report) -> None:
        """Stop what a crash has left running that is no datastore, so that its disks are free. The
        caller holds the lock of the disks.
        """
        del attached, report
        self._refuse(stored, "doesn't grow by itself")

    async def add_disk(
        self, stored: StoredDatastore, attached: Attached, disk: str, options: CreateOptions
    ) -> DatastoreSpec:
        """Use the space that the disks have gained."""
        del attached, disk, options
        self._refuse(stored, "takes no further disk")

    async def replace_disk(
        self,
        stored: StoredDatastore,
        attached: Attached,
        old: str,
        new: str,
        options: CreateOptions,
    ) -> DatastoreSpec:
        """Add a disk; returns the new spec."""
        del attached, old, new, options
        self._refuse(stored, "has no redundancy to replace a disk from")

    def _refuse(self, stored: StoredDatastore, what: str) -> NoReturn:
        raise StorageError(
            ErrorCode.UNSUPPORTED, f"Datastore {stored.id} is of kind {self.kind}: it {what}."
        )


def as_found(
    spec: DatastoreSpec, *, filesystem: str | None = None, disks: Sequence[str] | None = None
) -> DatastoreSpec:
    """Replace a disk; returns the new spec."""
    known = {item.value: item for item in Filesystem}
    if (found := known.get(filesystem or "")) is not None:
        spec = msgspec.structs.replace(spec, filesystem=found)
    if disks is not None and set(disks) != {*spec.disks, *spec.spares}:
        spares = tuple(disk for disk in spec.spares if disk in disks)
        members = tuple(disk for disk in disks if disk not in spares)
        spec = msgspec.structs.replace(spec, disks=members, spares=spares)
    return spec
