"""Volumes: virtual disks."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vmkernel.model import CheckRepair, Record, Slug

__all__ = ["KeepVolumeBody", "VolumeCheckQuery", "VolumePatchQuery"]


class KeepVolumeBody(Record, frozen=True, kw_only=True):
    """The volumes to keep, in addition to the one in the path."""

    together_with: Annotated[tuple[Slug, ...], Meta(max_length=63)] = ()
    """Others of the same datastore, such as a virtual machine's: all of them stay, or none."""


class VolumePatchQuery(Record, frozen=True, kw_only=True):
    """How a volume may be changed."""

    allow_shrink: bool = False
    """Consent to lose the data beyond the new size."""
    wait: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """Seconds to wait for the work to finish."""


class VolumeCheckQuery(Record, frozen=True, kw_only=True):
    """How a volume is checked."""

    repair: CheckRepair = CheckRepair.NONE
    wait: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """Seconds to wait for the work to finish."""
