"""Clones: new VMs made from existing ones."""

from __future__ import annotations

from vmkernel.model.base import DisplayName, Record, Slug

__all__ = ["CloneSpec"]


class CloneSpec(Record, frozen=True, kw_only=True):
    """What a clone is wanted to be, apart from what it copies from the original VM."""

    name: DisplayName = ""
    datastore: Slug | None = None
    """The datastore of the clone and its disks; the original's if null."""
    linked: bool = False
    """Make a linked clone: its disks store only the differences from the original, which must be a
    template and can't be changed or deleted while it has linked clones."""
    snapshot: Slug | None = None
    """Clone this snapshot of the original instead of its present state; the original may then be
    running."""
