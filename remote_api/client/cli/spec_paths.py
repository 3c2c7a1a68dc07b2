"""`PATH=VALUE`: one field of a VM's spec by a short path, such as `cpus.count=4`,
`disks.disk0.limits.iops.per_s=500`, `nics.nic1.connected=false`, `labels.owner=`.

Disks, drives and cards are named by their key (or counted from 0). Values are JSON where they can
be read so (`true`, `null`, `4`, `["disk"]`), sizes where the field is in bytes (`memory_bytes=2G`),
else text. An empty value is null: the field's default.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import click

from remote_api.client.cli.common import SIZE

__all__ = ["patch_of", "set_path"]

Spec = dict[str, Any]


def set_path(spec: Spec, setting: str) -> str:
    """Set one field in a spec as JSON; the name of its first part. UsageError where it can't be."""
    path, equals, text = setting.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        raise click.UsageError(f"{setting}: write PATH=VALUE, such as cpus.count=4")
    where: Any = spec
    for part in parts[:-1]:
        where = _below(where, part, setting)
    last = parts[-1]
    value = _value(parts, text, setting)
    if isinstance(where, list):
        where[_index(where, last, setting)] = value
    elif isinstance(where, dict):
        where[last] = value
    else:
        raise click.UsageError(f"{setting}: there is nothing below {parts[-2]}")
    return parts[0]


def patch_of(present: Spec, settings: tuple[str, ...]) -> Spec:
    """A merge patch (RFC 7396) that brings the settings about in the spec as it is now."""
    wanted = copy.deepcopy(present)
    for setting in settings:
        set_path(wanted, setting)
    return _difference(present, wanted)


def _difference(old: Spec, new: Spec) -> Spec:
    patch: Spec = {}
    for name, value in new.items():
        before = old.get(name)
        if value == before:
            continue
        both = isinstance(value, dict) and isinstance(before, dict)
        patch[name] = _difference(before, value) if both and before else value
    return patch


def _below(where: Any, part: str, setting: str) -> Any:
    if isinstance(where, list):
        return where[_index(where, part, setting)]
    if not isinstance(where, dict):
        raise click.UsageError(f"{setting}: there is nothing below {part}")
    if where.get(part) is None:
        where[part] = {}
    return where[part]


def _index(items: list[Any], part: str, setting: str) -> int:
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("key") == part:
            return index
    if part.isdigit() and int(part) < len(items):
        return int(part)
    names = [str(item.get("key")) for item in items if isinstance(item, dict)]
    there = f"there are {', '.join(names)}" if names else "there is none"
    raise click.UsageError(f"{setting}: there is no {part}; {there}")


def _value(parts: list[str], text: str, setting: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        pass
    holder = parts[-2] if len(parts) > 1 else ""
    if parts[-1].endswith("_bytes") or holder.endswith("bytes"):
        try:
            return SIZE.convert(text, None, None)
        except click.BadParameter as error:
            raise click.UsageError(f"{setting}: {error.message}") from error
    return text
