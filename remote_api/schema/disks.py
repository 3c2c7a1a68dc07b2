"""Disks of the host."""

from __future__ import annotations

from vmkernel.model import Record, ShortText

__all__ = ["WipeDiskBody"]


class WipeDiskBody(Record, frozen=True, kw_only=True):
    """A disk whose contents are to be destroyed."""

    disk: ShortText
    """The ID of the disk."""
    wipe_serial: ShortText
    """The ID again: consent to destroy all data on the disk."""
