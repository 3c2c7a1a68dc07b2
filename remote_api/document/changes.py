"""When a change of each field of a VM's spec takes effect: `x-mica-change` in the OpenAPI document.

The values are those of `Change` in vmkernel/model/scope.py; a property that only holds others has
none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import inspect

from vmkernel.model import VmSpec
from vmkernel.model.scope import Change
from vmkernel.model.vm_differences import scope_of

__all__ = ["CHANGE", "add_changes", "changes"]

CHANGE = "x-mica-change"


def changes() -> dict[tuple[str, str], Change]:
    """By wire type and property. A type that is used in several places has the same scope in each,
    or its properties can't be described: ValueError."""
    found: dict[tuple[str, str], Change] = {}
    for owner, name, change in _changes(inspect.type_info(VmSpec), ""):
        if found.setdefault((owner, name), change) is not change:
            raise ValueError(f"{owner}.{name} has two scopes: {found[owner, name]} and {change}")
    return found


def add_changes(components: dict[str, Any]) -> None:
    """Write it into the components of these types."""
    for (owner, name), change in changes().items():
        components[owner]["properties"][name][CHANGE] = change.value


def _changes(kind: inspect.Type, above: str) -> Iterator[tuple[str, str, Change]]:
    if isinstance(kind, inspect.Metadata):
        yield from _changes(kind.type, above)
    elif isinstance(kind, inspect.UnionType):
        for option in kind.types:
            yield from _changes(option, above)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _changes(kind.item_type, above)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            path = f"{above}.{field.encode_name}" if above else field.encode_name
            items = f"{path}[]"
            scope = scope_of(path) or scope_of(items)
            if scope is not None:
                yield kind.cls.__name__, field.encode_name, scope.change
            yield from _changes(field.type, items if scope_of(items) else path)
