"""What about a datastore needs attention; pure."""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.model import (
    DatastoreState,
    Finding,
    MemberState,
    RaidState,
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
    raid = entry.look.raid
    if raid is not None and raid.missing_disks:
        rebuilding = raid.state is RaidState.REBUILDING
        lost = [m.disk for m in entry.look.members if m.state in _LOST]
        names = f" ({', '.join(lost)})" if lost else ""
        yield _finding(
            entry,
            "datastore-degraded",
            Severity.WARNING if rebuilding else Severity.ERROR,
            f"The array of datastore {entry.id} lacks {raid.missing_disks} of its disks{names}: "
            + ("a rebuild is under way." if rebuilding else "replace them."),
        )


_LOST = (MemberState.MISSING, MemberState.FAULTY)


def _finding(entry: Entry, code: str, severity: Severity, message: str) -> Finding:
    return Finding(code=code, severity=severity, message=message, subject=f"datastore/{entry.id}")
