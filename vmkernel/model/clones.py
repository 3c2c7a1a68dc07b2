"""Clones: new virtual machines made of others."""

from __future__ import annotations

from vmkernel.model.base import DisplayName, Record, Slug

__all__ = ["CloneSpec"]


class CloneSpec(Record, frozen=True, kw_only=True):
    """What a clone is wanted to be, beyond a copy of the VM that it is made of."""

    name: DisplayName = ""
    datastore: Slug | None = None
    """The datastore of the clone and its disks; the original's if null."""
    linked: bool = False
    """Its disks are only the differences to those of the other, which must be a template: that must
    stay as it is while there are such clones."""
    snapshot: Slug | None = None
    """As the other was at this snapshot of it; it may run then."""
