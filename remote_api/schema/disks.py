"""Disks of the host."""

from __future__ import annotations

from vmkernel.model import Disk, Record, ShortText

__all__ = ["DiskPage", "WipeDiskBody"]


class DiskPage(Record, frozen=True, kw_only=True):
    """A part of the host's disks."""

    items: tuple[Disk, ...]
    next: str | None
    """The `page` of the next part; null at the end."""


class WipeDiskBody(Record, frozen=True, kw_only=True):
    """A disk whose contents are to be destroyed."""

    disk: ShortText
    """Its id."""
    wipe_serial: ShortText
    """The id once more: consent to destroy all that it holds."""
