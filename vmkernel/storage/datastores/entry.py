"""One datastore of this host, and its representation in the API; nothing is decided here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from vmkernel.model import Datastore, DatastoreState, DatastoreStatus, ErrorCode, SpaceLevel
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers.base import Attached, Observation
from vmkernel.storage.errors import StorageError
from vmkernel.storage.layout import Layout

__all__ = ["Entry", "Space", "describe", "not_available"]


@dataclass(frozen=True)
class Space:
    """The space of a file system, in bytes."""

    capacity_bytes: int = 0
    free_bytes: int = 0

    @property
    def used_percent(self) -> float:
        if not self.capacity_bytes:
            return 0.0
        return 100 * (self.capacity_bytes - self.free_bytes) / self.capacity_bytes


@dataclass
class Entry:
    """Owned by the event loop's thread; changes are made under `lock`."""

    stored: StoredDatastore
    state: DatastoreState = DatastoreState.MISSING
    reason: str | None = "It has not been looked for yet."
    held: bool = False
    """True if another host has it."""
    attached: Attached | None = None
    layout: Layout | None = None
    space: Space = field(default_factory=Space)
    """The last measurement."""
    level: SpaceLevel = SpaceLevel.OK
    observed: Observation = field(default_factory=Observation)
    reserved_bytes: int = 0
    users: int = 0
    leaving: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        return self.stored.id


def describe(entry: Entry, provisioned_bytes: int) -> Datastore:
    """The datastore as shown by the API, from memory."""
    attached = entry.attached
    status = DatastoreStatus(
        state=entry.state,
        uuid=entry.stored.uuid,
        reason=entry.reason,
        capacity_bytes=entry.space.capacity_bytes if attached else 0,
        free_bytes=max(0, entry.space.free_bytes - entry.reserved_bytes) if attached else 0,
        provisioned_bytes=provisioned_bytes if attached else 0,
        space=entry.level if attached else SpaceLevel.OK,
        device=attached.device if attached else None,
        filesystem=attached.filesystem if attached else None,
    )
    return Datastore(
        id=entry.stored.id,
        revision=entry.stored.revision,
        created_at=entry.stored.created_at,
        spec=entry.stored.spec,
        status=entry.observed.complete(status),
    )


def not_available(entry: Entry) -> StorageError:
    """The failure of a request that needs the content of a datastore: `conflict` if it was
    unmounted by request, else `unavailable`.
    """
    asked = entry.leaving or entry.state is DatastoreState.UNMOUNTED
    reason = "It is being changed." if entry.leaving else entry.reason
    return StorageError(
        ErrorCode.CONFLICT if asked else ErrorCode.UNAVAILABLE,
        f"Datastore {entry.id} is {entry.state}: {reason}",
    )
