"""Clones: new virtual machines made of others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import DisplayName, Slug, WireModel

__all__ = ["CloneBody", "CloneSpec"]


class CloneSpec(WireModel, frozen=True, kw_only=True):
    """What a clone is wanted to be, beyond a copy of the VM that it is made of."""

    name: DisplayName = ""
    datastore: Annotated[
        Slug | None, Meta(description="Where it and its disks lie; beside the other's where null.")
    ] = None
    linked: Annotated[
        bool,
        Meta(
            description="Its disks are only the differences to those of the other, which must be a"
            " template: that must stay as it is while there are such clones."
        ),
    ] = False
    snapshot: Annotated[
        Slug | None,
        Meta(description="As the other was at this snapshot of it; it may run then."),
    ] = None


class CloneBody(WireModel, frozen=True, kw_only=True):
    """A virtual machine to make of another, which is off, or of a snapshot of another."""

    id: Slug
    spec: CloneSpec = CloneSpec()
