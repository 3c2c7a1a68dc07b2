"""`PATH=VALUE`: one field of a VM's spec by a short path, such as `cpus.count=4`,
`disks.disk0.limits.iops.per_s=500`, `nics.nic1.connected=false`, `labels.owner=`.

Disks, drives and cards are named by their key (or counted from 0). Fields of text take the value as
it is. Others take JSON (`true`, `null`, `4`, `["disk"]`), or a size if the field is in bytes
(`memory_bytes=2G`). An empty value is null: the field's default.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import click
import msgspec
from msgspec import inspect

from remote_api.client.cli.parameters import SIZE
from vmkernel.model import VmSpec
from vmkernel.model.scope import Change
from vmkernel.model.vm_differences import differences

__all__ = ["patch_of", "set_path", "spec_as_json", "waiting_for_start"]

Spec = dict[str, Any]


def spec_as_json(spec: VmSpec) -> Spec:
    """A spec as the JSON that the host would get: mappings and lists, which can be changed."""
    raw: Spec = msgspec.json.decode(msgspec.json.encode(spec))
    return raw


def set_path(spec: Spec, setting: str) -> str:
    """Set one field in a spec as JSON; the name of its first part. UsageError if it can't be."""
    path, equals, text = setting.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        raise click.UsageError(f"{setting}: write PATH=VALUE, such as cpus.count=4")
    where: Any = spec
    for number in range(len(parts) - 1):
        where = _below(where, parts, number, setting)
    last = parts[-1]
    value = _value(parts, text, setting)
    if isinstance(where, list):
        where[_index(where, parts, len(parts) - 1, setting)] = value
    elif isinstance(where, dict):
        where[last] = value
    else:
        raise click.UsageError(f"{setting}: {parts[-2]} has no fields")
    return parts[0]


def patch_of(present: Spec, settings: tuple[str, ...]) -> Spec:
    """A merge patch (RFC 7396) that brings the settings about in the spec as it is now."""
    wanted = copy.deepcopy(present)
    for setting in settings:
        set_path(wanted, setting)
    return _difference(present, wanted)


def waiting_for_start(before: VmSpec, changed: VmSpec) -> list[str]:
    """The paths of the fields that differ and that a machine which runs heeds from its next start
    on."""
    return [
        found.name
        for found in differences(before, changed)
        if found.scope.change is Change.NEXT_START
    ]


def _difference(old: Spec, new: Spec) -> Spec:
    patch: Spec = {}
    for name, value in new.items():
        before = old.get(name)
        if value == before:
            continue
        both = isinstance(value, dict) and isinstance(before, dict)
        patch[name] = _difference(before, value) if both and before else value
    return patch


def _below(where: Any, parts: list[str], number: int, setting: str) -> Any:
    part = parts[number]
    if isinstance(where, list):
        return where[_index(where, parts, number, setting)]
    if not isinstance(where, dict):
        raise click.UsageError(f"{setting}: {parts[number - 1]} has no fields")
    if where.get(part) is None:
        where[part] = {}
    return where[part]


def _index(items: list[Any], parts: list[str], number: int, setting: str) -> int:
    """The place of the item that a part of a path names, by the list's own name before it."""
    part, kind = parts[number], parts[number - 1].removesuffix("s")
    # In a spec that no host has seen yet, keys are still to be given: disk0, disk1, ...
    names = [
        str(item.get("key") or f"{kind}{index}") if isinstance(item, dict) else ""
        for index, item in enumerate(items)
    ]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    named = [name for name in names if name]
    there = f"the VM has {', '.join(named)}" if named else f"the VM has no {parts[number - 1]}"
    raise click.UsageError(f"{setting}: {part} does not exist; {there}")


def _value(parts: list[str], text: str, setting: str) -> Any:
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if _takes_text(parts):
        return value if isinstance(value, str) or value is None else text
    holder = parts[-2] if len(parts) > 1 else ""
    in_bytes = parts[-1].endswith("_bytes") or holder.endswith("bytes")
    if in_bytes and isinstance(value, str):
        try:
            return SIZE.convert(text, None, None)
        except click.BadParameter as error:
            raise click.UsageError(f"{setting}: {error.message}") from error
    return value


def _takes_text(parts: list[str]) -> bool:
    """True if the field at a path is text, as this version knows the spec."""
    kind: Any = inspect.type_info(VmSpec)
    for part in parts:
        options = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        kind = next((found for o in options if (found := _member(o, part)) is not None), None)
        if kind is None:
            return False
    options = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(_bare(option), inspect.StrType | inspect.EnumType) for option in options)


def _member(kind: Any, part: str) -> Any:
    kind = _bare(kind)
    if isinstance(kind, inspect.StructType):
        return next((f.type for f in kind.fields if f.encode_name == part), None)
    if isinstance(kind, inspect.DictType):
        return kind.value_type
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return kind.item_type
    return None


def _bare(kind: Any) -> Any:
    return kind.type if isinstance(kind, inspect.Metadata) else kind
