"""Volumes: virtual disks."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = [
    "Allocation",
    "CheckRepair",
    "MAX_VOLUME_BYTES",
    "MIN_VOLUME_BYTES",
    "SECTOR_BYTES",
    "VOLUME_LISTING",
    "Volume",
    "VolumeCheck",
    "VolumeFormat",
    "VolumeSpec",
    "VolumeStatus",
]


SECTOR_BYTES = 512
"""The unit of disks' sizes and positions, in the kernel's figures and in the formats of images."""
MIN_VOLUME_BYTES, MAX_VOLUME_BYTES = 1 << 20, 1 << 50
MAX_UNUSED_S = 7 * 86_400
"""Longer than any restore goes without writing."""


class VolumeFormat(OpenEnum):
    """The format of a volume's file."""

    QCOW2 = "qcow2"
    RAW = "raw"


class Allocation(OpenEnum):
    """When a volume takes its space: as it is written, or all at creation."""

    THIN = "thin"
    """As the guest writes; what it discards is given back."""
    THICK = "thick"
    """All of it at creation, and for ever."""


class CheckRepair(OpenEnum):
    """What a check may mend: nothing, what is only wasted, or all (corrupt data may be lost)."""

    NONE = "none"
    LEAKS = "leaks"
    """Clusters that nothing uses: harmless, and safe to mend."""
    ALL = "all"
    """Everything: what is corrupt may be lost."""


class VolumeSpec(Record, frozen=True, kw_only=True):
    """What a volume is wanted to be."""

    datastore: Slug
    """Its datastore; a patch moves it."""
    size_bytes: Annotated[
        int, msgspec.Meta(ge=MIN_VOLUME_BYTES, le=MAX_VOLUME_BYTES, multiple_of=SECTOR_BYTES)
    ]
    """What the guest sees."""
    format: VolumeFormat = VolumeFormat.QCOW2
    allocation: Allocation = Allocation.THIN
    source_image: Slug | None = None
    """Filled from this image at creation."""
    source_volume: Slug | None = None
    """A copy of this volume, which no running VM may have, at creation."""
    delete_unless_used_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_UNUSED_S)] | None = None
    """Delete the volume again once no VM has named it, and nothing was done with it, for so many
    seconds: for a client that makes volumes before their VM, and may end in between. The time
    begins again when the host starts. A VM whose spec names the volume lets it stay for good, and
    this is null then; so does a patch to null."""


class VolumeCheck(Record, frozen=True, kw_only=True):
    """What the last check of a volume's file found, after what it mended."""

    checked_at: Timestamp
    corruptions: int
    leaks: int
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    snapshots: int = 0
    """Snapshots inside the file that belong to no VM: they can't be reverted to, and they take
    room. A repair of `leaks` removes those that Mica made, one of `all` every one; none is removed
    while a datastore, a VM or a snapshot is missing or unusable."""
    snapshots_removed: int = 0


class VolumeStatus(Record, frozen=True, kw_only=True):
    """What is observed of a volume."""

    allocated_bytes: int
    attached_to: str | None = None
    """The id of the VM whose spec names the volume."""
    reason: str | None = None
    """Why the volume can't be used."""
    backing: Slug | None = None
    """The volume that a linked one is the difference to."""
    children: tuple[Slug, ...] = ()
    """The volumes linked to it: while there are any, it must stay as it is."""
    shared_bytes: int | None = None
    """How much of what it takes it shares with other files, such as a clone; null in lists, and
    if the file system doesn't report it."""
    last_check: VolumeCheck | None = None
    expires_at: Timestamp | None = None
    """When it is deleted if nothing uses it by then; null if it stays."""


class Volume(Record, frozen=True, kw_only=True):
    """A virtual disk."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: VolumeSpec
    status: VolumeStatus


VOLUME_LISTING = Listing(
    item=Volume,
    filters={
        "id": Column("id"),
        "datastore": Column("spec.datastore"),
        "format": Column("spec.format"),
        "allocation": Column("spec.allocation"),
        "attached_to": Column("status.attached_to", text="The VM; empty for what none has."),
        "backing": Column("status.backing"),
        "source_image": Column("spec.source_image"),
    },
    sort={
        "id": Column("id"),
        "datastore": Column("spec.datastore"),
        "created_at": Column("created_at"),
        "size_bytes": Column("spec.size_bytes"),
        "allocated_bytes": Column("status.allocated_bytes"),
        "attached_to": Column("status.attached_to"),
    },
    summary=(
        *("revision", "created_at", "spec.datastore", "spec.size_bytes", "spec.format"),
        *("status.allocated_bytes", "status.attached_to", "status.reason"),
    ),
)
