"""The datastores as shown by the API, and their findings."""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.model import Datastore, DatastoreState, Finding, Severity, SpaceLevel
from vmkernel.storage.catalogue import Catalogue
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.entry import Entry, describe
from vmkernel.storage.datastores.registry import Datastores

__all__ = ["DatastoreViews", "findings_of"]


class DatastoreViews:
    """Read only; local datastores are measured, remote ones are shown as last measured."""

    def __init__(self, datastores: Datastores, catalogue: Catalogue, capacity: Capacity) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._capacity = capacity

    async def list(self) -> tuple[Datastore, ...]:
        """All datastores by id."""
        entries = sorted(self._datastores.entries.values(), key=lambda entry: entry.id)
        for entry in entries:
            await self._capacity.glance(entry)
        return tuple(self._describe(entry) for entry in entries)

    async def get(self, datastore_id: str) -> Datastore:
        entry = self._datastores.entry(datastore_id)
        await self._capacity.glance(entry)
        return self._describe(entry)

    def findings(self) -> Iterator[Finding]:
        """Datastores that can't be used, are full, or have lost redundancy."""
        for entry in self._datastores.entries.values():
            yield from findings_of(entry)

    def _describe(self, entry: Entry) -> Datastore:
        volumes = self._catalogue.volumes.values()
        return describe(
            entry, sum(item.size_bytes for item in volumes if item.datastore == entry.id)
        )


def findings_of(entry: Entry) -> Iterator[Finding]:
    """Missing, used by another host, full, or less redundant than it was made."""
    if entry.state is DatastoreState.UNMOUNTED:
        return
    if entry.state is not DatastoreState.AVAILABLE:
        yield _finding(
            entry,
            "datastore-held" if entry.held else f"datastore-{entry.state}",
            Severity.ERROR,
            f"Datastore {entry.id} is {entry.state}: {entry.reason}",
        )
        return
    if entry.level is not SpaceLevel.OK:
        critical = entry.level is SpaceLevel.CRITICAL
        yield _finding(
            entry,
            "datastore-full" if critical else "datastore-filling",
            Severity.ERROR if critical else Severity.WARNING,
            f"{entry.space.used_percent:.0f} % of datastore {entry.id} are used;"
            f" {entry.space.free_bytes >> 20} MiB are left.",
        )
    yield from entry.observed.findings(entry.id)


def _finding(entry: Entry, code: str, severity: Severity, message: str) -> Finding:
    return Finding(code=code, severity=severity, message=message, subject=f"datastore/{entry.id}")
