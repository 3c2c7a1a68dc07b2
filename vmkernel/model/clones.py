"""Clones: new virtual machines made of others."""

from __future__ import annotations

from vmkernel.model.base import DisplayName, Record, Slug

__all__ = ["CloneSpec"]


class CloneSpec(Record, frozen=True, kw_only=True):
    """What a clone is wanted to be, beyond a copy of the VM that it is made of."""

    name: DisplayName = ""
    datastore: Slug | None = None
    """Where it and its disks lie; beside the other's where it isn't given."""
    linked: bool = False
    """Its disks are the differences to those of the other, a template, which must stay as they are
    from then on; made at once, whatever their size."""
    snapshot: Slug | None = None
    """As the other was at this snapshot of it; it may run then."""
