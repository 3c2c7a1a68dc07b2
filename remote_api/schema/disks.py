"""Disks of the host."""

from __future__ import annotations

from vmkernel.model import Record, ShortText

__all__ = ["WipeDiskBody"]


class WipeDiskBody(Record, frozen=True, kw_only=True):
    """A disk whose contents are to be destroyed."""

    disk: ShortText
    """Its id."""
    wipe_serial: ShortText
    """The id once more: consent to destroy all that it holds."""
