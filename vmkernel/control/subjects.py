"""The object of a request, for the audit trail."""

from __future__ import annotations

from typing import Any

from vmkernel.control.requests import CreateUpload, Request, WipeDisk
from vmkernel.model import Subject

__all__ = ["noun_of", "subject_of"]

_AREAS = frozenset({"access", "api", "event", "host", "storage"})
"""Areas of several nouns; any other area in the tags of requests is its noun."""
_NOUNS = {
    "datastore": "datastore",
    "image": "image",
    "volume": "volume",
    "upload": "upload",
    "token": "token",
    "disk": "datastore",
}
"""By a word in the tags of such areas; `storage.add-disk` is about the datastore that gets it."""


def subject_of(request: Request[Any]) -> Subject:
    """The object that a request names; the host if it names none."""
    if isinstance(request, CreateUpload):
        return Subject(kind="image", id=request.spec.image)
    if isinstance(request, WipeDisk):
        return Subject(kind="disk", id=request.disk)
    # What belongs to a VM (a snapshot, a checkpoint) has an id of its own beside the VM's.
    name = getattr(request, "vm", None) or getattr(request, "id", None)
    noun = noun_of(type(request))
    if name is None or noun is None:
        return Subject(kind="host", id="host")
    return Subject(kind=noun, id=name)


def noun_of(kind: type[Request[Any]]) -> str | None:
    """What requests of a kind are about, by their wire tag; None for the host."""
    area, _, action = str(kind.__struct_config__.tag).partition(".")
    if area not in _AREAS:
        return area
    return next((noun for word, noun in _NOUNS.items() if word in action), None)
