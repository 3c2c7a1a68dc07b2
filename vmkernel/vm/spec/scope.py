"""What becomes of a spec in a revert, a clone and a memory image, by the scopes of its fields
(`SCOPES` in `vmkernel/model/vm.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from vmkernel.model import VmSpec
from vmkernel.model.scope import Change, Scope
from vmkernel.model.vm import SCOPES
from vmkernel.model.vm_differences import Difference

__all__ = ["after_revert", "for_clone", "is_host_only", "restored", "without_host_fields"]

Anything = TypeVar("Anything")


def is_host_only(old: VmSpec, new: VmSpec) -> bool:
    """True if the guest sees nothing of the change: it can be made in any state."""
    return _changed(new, lambda scope: scope.change is Change.HOST_ONLY, old) == old


def after_revert(now: VmSpec, then: VmSpec) -> VmSpec:
    """The spec of a VM that goes back to `then`: host-only fields keep their present values."""
    return _changed(then, lambda scope: not scope.guest, now)


def for_clone(source: VmSpec, *, datastore: str, name: str) -> VmSpec:
    """The spec of a clone, its disks still those of the source; what belongs to the source alone is
    as if it had not been given."""
    fresh = _changed(source, lambda scope: scope.own)
    return replace(fresh, datastore=datastore, name=name)


def without_host_fields(spec: VmSpec) -> VmSpec:
    """The spec for a memory image: without fields that the guest doesn't see, whose changes it
    survives, and without those of its first start.
    """
    return _changed(spec, lambda scope: not scope.guest or scope.first_start)


def restored(spec: VmSpec, found: Difference) -> VmSpec:
    """The spec with the old value of a field that differs; as it is if it lacks what has the
    field."""
    return _with(spec, found.path, found.key, found.old)


def _with(record: Anything, path: str, key: str | None, value: Any) -> Anything:
    part, _, below = path.partition(".")
    name = part.removesuffix("[]")
    present = getattr(record, name)
    if not below:
        new = value
    elif part.endswith("[]"):
        new = tuple(_with(one, below, key, value) if one.key == key else one for one in present)
    else:
        new = None if present is None else _with(present, below, key, value)
    return replace(record, **{name: new})  # type: ignore[type-var]


def _changed(
    record: Anything, wanted: Callable[[Scope], bool], source: Any = msgspec.UNSET, above: str = ""
) -> Anything:
    """The record with each field of a wanted scope as `source` has it, or without a source by
    default. Items of lists are the same if they have the same key; items that the source lacks, and
    fields without a default, stay."""
    changes: dict[str, Any] = {}
    for info in msgspec.structs.fields(type(record)):  # type: ignore[arg-type]
        path = f"{above}{info.name}"
        value = getattr(record, info.name)
        other = getattr(source, info.name) if source is not msgspec.UNSET else msgspec.UNSET
        scope = SCOPES.get(path)
        if scope is not None and wanted(scope):
            changes[info.name] = _default(info, value) if other is msgspec.UNSET else other
        elif f"{path}[]" in SCOPES:
            others = {item.key: item for item in other} if other is not msgspec.UNSET else None
            changes[info.name] = tuple(
                item
                if others is not None and item.key not in others
                else _changed(
                    item,
                    wanted,
                    msgspec.UNSET if others is None else others[item.key],
                    f"{path}[].",
                )
                for item in value
            )
        elif isinstance(value, msgspec.Struct) and other is not None:
            changes[info.name] = _changed(value, wanted, other, f"{path}.")
    return replace(record, **changes)  # type: ignore[type-var]


def _default(info: msgspec.structs.FieldInfo, value: Any) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return value if info.default is msgspec.NODEFAULT else info.default
