"""Volumes: virtual disks."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import ObjectBody, Slug, Timestamp, WireEnum, WireModel

__all__ = [
    "Allocation",
    "CheckRepair",
    "Volume",
    "VolumeBody",
    "VolumeCheck",
    "VolumeCheckQuery",
    "VolumeFormat",
    "VolumePage",
    "VolumePatchQuery",
    "VolumeSpec",
    "VolumeStatus",
]


MAX_BYTES = 1 << 50


class VolumeFormat(WireEnum):
    """How a volume's data lie in its file."""

    QCOW2 = "qcow2"
    RAW = "raw"


class Allocation(WireEnum):
    """When a volume takes its space: as it is written, or all at creation."""

    THIN = "thin"
    THICK = "thick"


class CheckRepair(WireEnum):
    """What a check may mend: nothing, what is only wasted, or all (corrupt data may be lost)."""

    NONE = "none"
    LEAKS = "leaks"
    ALL = "all"


class VolumeSpec(WireModel, frozen=True, kw_only=True):
    """What a volume is wanted to be."""

    datastore: Annotated[Slug, Meta(description="Where it lies; a patch moves it.")]
    size_bytes: Annotated[
        int, Meta(ge=1 << 20, le=MAX_BYTES, multiple_of=512, description="What the guest sees.")
    ]
    format: VolumeFormat = VolumeFormat.QCOW2
    allocation: Allocation = Allocation.THIN
    source_image: Annotated[
        Slug | None, Meta(description="Filled from this image at creation.")
    ] = None
    source_volume: Annotated[
        Slug | None,
        Meta(description="A copy of this volume, which no running VM may have, at creation."),
    ] = None


class VolumeBody(ObjectBody, frozen=True, kw_only=True):
    """A volume to make."""

    spec: VolumeSpec


class VolumeCheck(WireModel, frozen=True, kw_only=True):
    """What the last check of a volume's file found, after what it mended."""

    checked_at: Timestamp
    corruptions: int
    leaks: int
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    snapshots: Annotated[
        int,
        Meta(
            description="Snapshots inside the file that belong to no VM: nothing can go back to"
            " them, and they take room. A repair of `leaks` removes those that Mica made, one of"
            " `all` every one; none is removed while a datastore, a VM or a snapshot is missing or"
            " unusable."
        ),
    ] = 0
    snapshots_removed: int = 0


class VolumeStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a volume."""

    allocated_bytes: int
    attached_to: Annotated[
        str | None, Meta(description="The id of the VM whose spec names the volume.")
    ] = None
    reason: Annotated[str | None, Meta(description="Why the volume can't be used.")] = None
    backing: Annotated[
        Slug | None, Meta(description="The volume that a linked one is the difference to.")
    ] = None
    children: Annotated[
        tuple[Slug, ...],
        Meta(description="The volumes linked to it: while there are any, it must stay as it is."),
    ] = ()
    shared_bytes: Annotated[
        int | None,
        Meta(
            description="How much of what it takes it shares with other files, such as a clone;"
            " null in lists, and where the file system doesn't tell."
        ),
    ] = None
    last_check: VolumeCheck | None = None


class Volume(WireModel, frozen=True, kw_only=True):
    """A virtual disk."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: VolumeSpec
    status: VolumeStatus


class VolumePage(WireModel, frozen=True, kw_only=True):
    """A part of the volumes."""

    items: tuple[Volume, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class VolumePatchQuery(WireModel, frozen=True, kw_only=True):
    """How a volume may be changed."""

    allow_shrink: Annotated[
        bool, Meta(description="Consent to cut off what lies behind the new size.")
    ] = False
    wait: Annotated[
        float, Meta(ge=0, le=300, description="Seconds to wait for the work to finish.")
    ] = 0.0


class VolumeCheckQuery(WireModel, frozen=True, kw_only=True):
    """How a volume is checked."""

    repair: CheckRepair = CheckRepair.NONE
    wait: Annotated[
        float, Meta(ge=0, le=300, description="Seconds to wait for the work to finish.")
    ] = 0.0
