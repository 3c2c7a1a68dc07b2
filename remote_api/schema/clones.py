"""Clones: new virtual machines made of others."""

from __future__ import annotations

from vmkernel.model import CloneSpec, Record, Slug

__all__ = ["CloneBody"]


class CloneBody(Record, frozen=True, kw_only=True):
    """A virtual machine to make of another, which is off, or of a snapshot of another."""

    id: Slug
    spec: CloneSpec = CloneSpec()
