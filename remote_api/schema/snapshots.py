"""Snapshots of virtual machines: points in a VM's history that it can be reverted to."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import ObjectBody
from vmkernel.model import Record, Slug, SnapshotSpec

__all__ = ["RevertQuery", "SnapshotBody"]


class SnapshotBody(ObjectBody, frozen=True, kw_only=True):
    """A snapshot to take."""

    spec: SnapshotSpec = SnapshotSpec()
    vm: Slug | UnsetType = UNSET
    """Sent back; ignored."""


class RevertQuery(Record, frozen=True, kw_only=True):
    """What becomes of the VM after it went back."""

    start: bool | UnsetType = UNSET
    """Whether it runs then; by default as it ran before, or with the memory of then."""
    wait: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """Seconds to wait for the work to finish."""
