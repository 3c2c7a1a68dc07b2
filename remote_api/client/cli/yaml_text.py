"""YAML of JSON's values: mappings, lists, strings, numbers, true, false and null.

Only strings that can be nothing else are written without quotes; all others in double quotes with
JSON's escapes, which YAML reads as JSON does. That subset needs no library.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["yaml_text"]

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?<![.-])\Z")
_UNPRINTABLE = re.compile(
    r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""What YAML has only as an escape, or takes for the end of a line."""
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"}
"""What some reader of YAML takes for another type, in any case."""


def yaml_text(value: Any) -> str:
    """A value that JSON can hold, as one YAML document without a line feed at its end."""
    return "\n".join(_block(msgspec.to_builtins(value, str_keys=True)))


def _block(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for name, item in value.items():
            lines += _member(f"{_scalar(str(name))}:", item, indent="  ")
        return lines
    if isinstance(value, list | tuple) and value:
        lines = []
        for item in value:
            inner = _block(item)
            lines += [f"- {inner[0]}", *(f"  {line}" for line in inner[1:])]
        return lines
    return [_scalar(value)]


def _member(head: str, item: Any, *, indent: str) -> list[str]:
    inner = _block(item)
    if isinstance(item, dict) and item:
        return [head, *(indent + line for line in inner)]
    if isinstance(item, list | tuple) and item:
        return [head, *inner]
    return [f"{head} {inner[0]}"]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.match(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return _UNPRINTABLE.sub(
        lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(value).decode()
    )
