"""All faults of a value that a client sent, by its wire type, in plain words.

msgspec stops at the first one. This continues, and accepts what JSON Schema also accepts: `1.0` is
a whole number. It runs only on what msgspec has refused.
"""

from __future__ import annotations

import re
import types
from enum import Enum
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Meta, UnsetType

from vmkernel.model import FieldCode, FieldError
from vmkernel.text import PRINTABLE, PRINTABLE_LINES, PRINTABLE_WITH_TABS

__all__ = ["MAX_VIOLATIONS", "examined"]

MAX_VIOLATIONS = 64
"""The most that one answer names: enough for a form, too few for an answer larger than its
request."""

_EXPECTED = re.compile(
    r"Expected `(?P<wanted>[^`]+)`(?P<rest>.*?)(?:, got `(?P<got>\w+)`)?\Z", re.S
)
_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LENGTHS = {"str": "characters", "array": "items", "object": "members"}
_RULES = (
    (
        re.compile(r" of length >= (\d+)\Z"),
        "with at least {} {unit}",
        FieldCode.TOO_SHORT,
    ),
    (re.compile(r" of length <= (\d+)\Z"), "with at most {} {unit}", FieldCode.TOO_LONG),
    (re.compile(r" >= (-?[\d.]+)\Z"), "of at least {}", FieldCode.TOO_SMALL),
    (re.compile(r" <= (-?[\d.]+)\Z"), "of at most {}", FieldCode.TOO_LARGE),
    (re.compile(r" > (-?[\d.]+)\Z"), "above {}", FieldCode.TOO_SMALL),
    (re.compile(r" < (-?[\d.]+)\Z"), "below {}", FieldCode.TOO_LARGE),
    (
        re.compile(r" that's a multiple of (\d+)\Z"),
        "that is a multiple of {}",
        FieldCode.NOT_A_MULTIPLE,
    ),
)

_Parameters = dict[str, str | int | float]
_Fault = tuple[str, FieldCode, _Parameters]
"""What is wrong in words, its kind, and the values that the words mention."""


def examined(
    value: Any, wire: Any, *, at: str = "", texts: bool = False, partial: bool = False
) -> tuple[Any, list[FieldError]]:
    """The value with its numbers converted to the type, and its faults.

    `at` points to the value; `texts`: numbers and the like are text, as in a query; `partial`: a
    merge patch, in which fields may be missing, and null removes.
    """
    look = _Look(texts=texts, partial=partial)
    return look.at(value, wire, at), look.found[:MAX_VIOLATIONS]


class _Look:
    def __init__(self, *, texts: bool, partial: bool) -> None:
        self.found: list[FieldError] = []
        self._texts = texts
        self._partial = partial

    def at(self, value: Any, wire: Any, pointer: str) -> Any:
        """The accepted value; records its faults."""
        if len(self.found) > MAX_VIOLATIONS or (self._partial and value is None):
            return value
        members, metas = _members(wire)
        inner = members[0] if len(members) == 1 else None
        if _is_struct(inner) and isinstance(value, dict):
            return self._struct(value, inner, pointer)
        origin = get_origin(inner)
        if origin in (tuple, list) and isinstance(value, list):
            item = get_args(inner)[0]
            items = [self.at(each, item, f"{pointer}/{n}") for n, each in enumerate(value)]
            self._leaf(items, Annotated[list[Any], *metas] if metas else list[Any], pointer)
            return items
        if origin is dict and isinstance(value, dict):
            return self._mapping(value, inner, metas, pointer)
        return self._leaf(value, wire, pointer)

    def _struct(self, value: dict[str, Any], wire: Any, pointer: str) -> dict[str, Any]:
        fields = _fields(wire)
        taken = {}
        for name, each in value.items():
            if name in fields:
                taken[name] = self.at(each, fields[name], f"{pointer}/{_escape(name)}")
            else:
                self._note(f"{pointer}/{_escape(name)}", *_unknown(name, fields, self._texts))
        if not self._partial:
            for name in _required(wire):
                if name not in value:
                    what = "parameter" if self._texts else "field"
                    told = f"The {what} is required."
                    self._note(f"{pointer}/{_escape(name)}", told, FieldCode.REQUIRED)
        return taken

    def _mapping(self, value: dict[str, Any], wire: Any, metas: Any, pointer: str) -> Any:
        key, item = get_args(wire)
        for name in value:
            self._leaf(name, key, f"{pointer}/{_escape(name)}", "The member's name: ")
        items = {
            name: self.at(each, item, f"{pointer}/{_escape(name)}") for name, each in value.items()
        }
        kind = dict[str, Any]
        self._leaf(items, Annotated[kind, *metas] if metas else kind, pointer)
        return items

    def _leaf(self, value: Any, wire: Any, pointer: str, prefix: str = "") -> Any:
        members, _ = _members(wire)
        if isinstance(value, float) and value.is_integer() and int in map(_bare, members):
            value = int(value)
        try:
            msgspec.convert(value, wire, strict=not self._texts)
        except msgspec.ValidationError as error:
            detail, code, parameters = _in_words(str(error), value, wire)
            self._note(pointer, prefix + detail, code, parameters)
        return value

    def _note(
        self, pointer: str, detail: str, code: FieldCode, parameters: _Parameters | None = None
    ) -> None:
        self.found.append(
            FieldError(pointer=pointer, detail=detail, code=code, parameters=parameters or {})
        )


def _members(wire: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """The types that a value may have, without null and unset, and its annotations."""
    metas: tuple[Any, ...] = ()
    while get_origin(wire) is Annotated:
        wire, *more = get_args(wire)
        metas = (*more, *metas)
    if get_origin(wire) not in (Union, types.UnionType):
        return [wire], metas
    members: list[Any] = []
    for each in get_args(wire):
        if each not in (types.NoneType, UnsetType):
            inside, more_metas = _members(each)
            members += inside
            metas = (*metas, *more_metas)
    return members, metas


def _bare(wire: Any) -> Any:
    return get_args(wire)[0] if get_origin(wire) is Annotated else wire


def _is_struct(wire: Any) -> bool:
    kind = get_origin(wire) or wire
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


@cache
def _fields(wire: Any) -> dict[str, Any]:
    """The types of a struct's fields by the names on the wire."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(wire)}


@cache
def _required(wire: Any) -> tuple[str, ...]:
    return tuple(field.encode_name for field in msgspec.structs.fields(wire) if field.required)


def _unknown(name: str, fields: dict[str, Any], parameter: bool) -> _Fault:
    if parameter:
        known = ", ".join(fields) or "none"
        return f"Unknown parameter (known: {known}).", FieldCode.UNKNOWN, {"known": known}
    from difflib import get_close_matches

    if close := get_close_matches(name, fields, n=1):
        told = f"Unknown field. Did you mean `{close[0]}`?"
        return told, FieldCode.UNKNOWN, {"similar": close[0]}
    return "Unknown field.", FieldCode.UNKNOWN, {}


def _in_words(text: str, value: Any, wire: Any) -> _Fault:
    """The fault of a plain value, in words."""
    members, metas = _members(wire)
    if text.startswith("Invalid enum value"):
        kinds = [kind for kind in members if isinstance(kind, type) and issubclass(kind, Enum)]
        allowed = ", ".join(str(each.value) for kind in kinds for each in kind)
        told = f"{str(value)[:80]!r} is not allowed; use one of {allowed}."
        return told, FieldCode.NOT_ALLOWED, {"allowed": allowed}
    match = _EXPECTED.match(text)
    if match is None:
        return f"{text}.", FieldCode.INVALID, {}
    wanted = [each.strip() for each in match["wanted"].split("|")]
    names = " or ".join(_NAMES.get(each, each) for each in wanted)
    if match["got"]:
        told = f"It must be {names}, and is {_NAMES.get(match['got'], match['got'])}."
        types = {"expected": " or ".join(wanted), "found": match["got"]}
        return told, FieldCode.WRONG_TYPE, types
    if match["rest"].startswith(" matching regex"):
        return _form(metas), FieldCode.WRONG_FORM, {}
    for rule, words, code in _RULES:
        if limit := rule.match(match["rest"]):
            told = words.format(limit[1], unit=_LENGTHS.get(wanted[0], ""))
            number = float(limit[1]) if "." in limit[1] else int(limit[1])
            return f"It must be {names} {told}.", code, {"limit": number}
    return f"{text}.", FieldCode.INVALID, {}


def _form(metas: tuple[Any, ...]) -> str:
    """What a type says about the form of its texts."""
    told = [meta for meta in metas if isinstance(meta, Meta) and meta.pattern]
    if any(meta.pattern in (PRINTABLE, PRINTABLE_LINES, PRINTABLE_WITH_TABS) for meta in told):
        return "Control and bidirectional control characters are not allowed here."
    described = [meta for meta in (*told, *metas) if isinstance(meta, Meta) and meta.description]
    if not described:
        return "It has characters or a form that can't be used here."
    examples = [meta.examples[0] for meta in told if meta.examples]
    such = f" such as {examples[0]}" if examples else ""
    return f"Not of the form{such} ({str(described[0].description).rstrip('.')})."


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
