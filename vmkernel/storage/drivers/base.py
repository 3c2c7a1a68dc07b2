"""What a kind of datastore must be able to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmkernel.model import DatastoreKind, DatastoreSpec
from vmkernel.state import StoredDatastore

__all__ = ["Attached", "DatastoreDriver", "Report"]

Report = Callable[[str], None]
"""Called with the name of each stage."""


@dataclass(frozen=True)
class Attached:
    """A datastore whose tree can be used."""

    root: Path
    uuid: str
    device: str | None = None
    filesystem: str | None = None
    partition_uuid: str | None = None


class DatastoreDriver(Protocol):
    """One kind of datastore. Methods raise MicaError; DatastoreMissing where it may come back."""

    @property
    def kind(self) -> DatastoreKind:
        """The kind that it serves."""
        ...

    async def check(self, spec: DatastoreSpec, wipe_serial: str | None) -> None:
        """Refuse at once what `create` would refuse; nothing is changed."""
        ...

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, wipe_serial: str | None, report: Report
    ) -> Attached:
        """Make the datastore, or adopt the one that is there, and attach it."""
        ...

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Bring back a datastore that is known."""
        ...

    async def detach(self, datastore_id: str, *, force: bool = False) -> None:
        """Let go of it; `in-use` where something is open there, unless `force`."""
        ...

    async def present(self, stored: StoredDatastore) -> bool:
        """True while what it lies on is there; cheap enough to ask every few seconds."""
        ...
