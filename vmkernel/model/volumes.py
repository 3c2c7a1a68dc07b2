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
"""Longer than any pause between the writes of a restore."""


class VolumeFormat(OpenEnum):
    """The format of a volume's file."""

    QCOW2 = "qcow2"
    RAW = "raw"


class Allocation(OpenEnum):
    """When a volume takes its space: as data are written, or all at creation."""

    THIN = "thin"
    """As the guest writes; discarded blocks are returned."""
    THICK = "thick"
    """All of it at creation."""


class CheckRepair(OpenEnum):
    """What a check may repair: nothing, only leaked clusters, or everything (corrupt data may be
    lost).
    """

    NONE = "none"
    LEAKS = "leaks"
    """Leaked clusters: harmless, and safe to repair."""
    ALL = "all"
    """Everything; corrupt data may be lost."""


class VolumeSpec(Record, frozen=True, kw_only=True):
    """What a volume is wanted to be."""

    datastore: Slug
    """The volume's datastore; changing it moves the volume."""
    size_bytes: Annotated[
        int, msgspec.Meta(ge=MIN_VOLUME_BYTES, le=MAX_VOLUME_BYTES, multiple_of=SECTOR_BYTES)
    ]
    """The size that the guest sees."""
    format: VolumeFormat = VolumeFormat.QCOW2
    allocation: Allocation = Allocation.THIN
    source_image: Slug | None = None
    """Fill the new volume from this image."""
    source_volume: Slug | None = None
    """Copy this volume, which no running VM may use."""
    delete_unless_used_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_UNUSED_S)] | None = None
    """Delete the volume if no VM names it and nothing is done with it for this many seconds. For
    clients that create volumes before their VM and may fail in between. The time restarts when the
    host starts. When a VM's spec names the volume, or a patch sets this field to null, it becomes
    null and the volume stays."""


class VolumeCheck(Record, frozen=True, kw_only=True):
    """What the last check of a volume's file found and did not repair."""

    checked_at: Timestamp
    corruptions: int
    leaks: int
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    snapshots: int = 0
    """Snapshots inside the file that belong to no VM: they can't be reverted to, and they take
    space. A repair of `leaks` removes those that Mica made; a repair of `all` removes every one.
    None is removed while a datastore, a VM or a snapshot is missing or unusable."""
    snapshots_removed: int = 0


class VolumeStatus(Record, frozen=True, kw_only=True):
    """What is observed of a volume."""

    allocated_bytes: int
    attached_to: str | None = None
    """The ID of the VM whose spec names the volume."""
    reason: str | None = None
    """Why the volume can't be used."""
    backing: Slug | None = None
    """The volume that a linked volume stores its differences from."""
    children: tuple[Slug, ...] = ()
    """The linked volumes based on it; while there are any, it can't be changed or deleted."""
    shared_bytes: int | None = None
    """How much of its space is shared with other files, such as clones; null in lists, and if the
    file system doesn't report it."""
    last_check: VolumeCheck | None = None
    expires_at: Timestamp | None = None
    """When it is deleted if it is still unused; null if it stays."""


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
