"""What differs between two specs of a VM, field by field, with the scope of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from vmkernel.model.scope import Scope
from vmkernel.model.vm import SCOPES

__all__ = ["Difference", "differences", "scope_of"]


def scope_of(path: str) -> Scope | None:
    """The scope of the field at a path, which may be below a path of the table; None for a field
    that only holds others, and for unknown fields.
    """
    above = path
    while above not in SCOPES:
        above, dot, _ = above.rpartition(".")
        if not dot:
            return None
    return SCOPES[above] if above == path or not _holds(above) else None


@dataclass(frozen=True)
class Difference:
    """One field in which two specs differ, or one item that only one of them has."""

    path: str
    """A key of `SCOPES`."""
    pointer: str
    """Its place below `/spec` in the new spec; that of the list for an item that the new spec
    lacks."""
    old: Any
    """None if the item is new."""
    new: Any
    """None if the item was removed."""
    key: str | None = None
    """The key of the disk, drive or NIC that it belongs to."""

    @property
    def scope(self) -> Scope:
        return SCOPES[self.path]

    @property
    def name(self) -> str:
        """The field as a user writes it: `disks.disk0.limits`."""
        return self.path.replace("[]", "" if self.key is None else f".{self.key}")


def differences(old: Any, new: Any) -> Iterator[Difference]:
    """Where two complete specs differ, in the order of their fields. Items of lists are the same if
    they have the same key, wherever they are."""
    yield from _of_record(old, new, "", "/spec", None)


def _of_record(
    old: Any, new: Any, above: str, pointer: str, key: str | None
) -> Iterator[Difference]:
    for info in msgspec.structs.fields(type(new)):
        before, after = getattr(old, info.name), getattr(new, info.name)
        path, place = f"{above}{info.name}", f"{pointer}/{info.name}"
        if before == after:
            continue
        if f"{path}[]" in SCOPES:
            yield from _of_items(before, after, f"{path}[]", place)
        elif _holds(path) and before is not None and after is not None:
            yield from _of_record(before, after, f"{path}.", place, key)
        else:
            yield Difference(path, place, before, after, key)


def _of_items(old: Any, new: Any, path: str, pointer: str) -> Iterator[Difference]:
    before = {item.key: item for item in old}
    after = {item.key for item in new}
    for index, item in enumerate(new):
        place = f"{pointer}/{index}"
        if item.key in before:
            yield from _of_record(before[item.key], item, f"{path}.", place, item.key)
        else:
            yield Difference(path, place, None, item, item.key)
    for item in old:
        if item.key not in after:
            yield Difference(path, pointer, item, None, item.key)


def _holds(path: str) -> bool:
    """True if the table has the fields below this path one by one."""
    return any(known.startswith(f"{path}.") for known in SCOPES)
