"""Backups of VMs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vmkernel.model import Record, Slug

__all__ = ["BackupBody", "ExtentsQuery"]


class BackupBody(Record, frozen=True, kw_only=True):
    """A backup to begin."""

    disks: Annotated[tuple[str, ...], Meta(max_length=64)] | None = None
    """Keys such as `disk0`; all disks if omitted."""
    checkpoint: Slug | None = None
    """Record changes from now on under this name."""
    since: Slug | None = None
    """List only what changed since this checkpoint."""
    time_limit_s: Annotated[int, Meta(ge=10, le=7 * 86400)] = 4 * 3600
    """The backup ends by itself after this many seconds."""


class ExtentsQuery(Record, frozen=True, kw_only=True):
    """Where the list of extents begins."""

    offset: Annotated[int, Meta(ge=0, le=1 << 62)] = 0
    """In bytes."""
