"""Clones: new virtual machines made of others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Slug, WireModel

__all__ = ["CloneBody", "CloneSpec"]


class CloneSpec(WireModel, frozen=True, kw_only=True):
    """What a clone is wanted to be, beyond a copy of the VM that it is made of."""

    name: Annotated[str, Meta(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")] = ""
    datastore: Annotated[
        Slug | None, Meta(description="Where it and its disks lie; beside the other's where null.")
    ] = None


class CloneBody(WireModel, frozen=True, kw_only=True):
    """A virtual machine to make of another, which is off."""

    id: Slug
    spec: CloneSpec = CloneSpec()
