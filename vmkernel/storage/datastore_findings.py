"""What about a datastore needs attention; pure."""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.model import (
    DatastoreState,
    Finding,
    Severity,
    SpaceLevel,
)
from vmkernel.storage.datastore_entry import Entry

__all__ = ["findings_of"]


def findings_of(entry: Entry) -> Iterator[Finding]:
    """Not there, another Mica's, full, or less redundant than it was made."""
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
