"""Strict decoding of JSON bodies, queries and merge patches, with pointers to what is wrong."""

from __future__ import annotations

import ast
import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from remote_api.failures import ApiError
from remote_api.schema import FieldError, ProblemCode
from vmkernel.text import PRINTABLE, PRINTABLE_LINES, PRINTABLE_WITH_TABS

__all__ = ["decode_body", "decode_patch", "decode_query", "in_words", "merge_patch", "pointer_of"]

T = TypeVar("T")

_MAX_DEPTH = 32
_UNKNOWN = re.compile(
    r"Object contains unknown field `(?P<name>.*?)`(?: - at `(?P<path>\$.*)`)?\Z", re.S
)
_MISSING = re.compile(
    r"Object missing required field `(?P<name>.*?)`(?: - at `(?P<path>\$.*)`)?\Z", re.S
)
_AT = re.compile(r"(?P<what>.*) - at (?P<key>key in )?`(?P<path>\$.*)`\Z", re.S)
_REGEX = re.compile(r"Expected `str` matching regex ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def decode_body(body: bytes, wire: type[T]) -> T:
    """A JSON body as a wire type.

    Raises ApiError: 400 where it is no JSON, 422 with a pointer where a value can't be used.
    """
    if not body:
        raise ApiError(ProblemCode.MALFORMED, "The request needs a JSON body.")
    try:
        return msgspec.json.decode(body, type=wire)
    except msgspec.ValidationError as error:
        raise _invalid(error, wire) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def decode_query(query: bytes, wire: type[T]) -> T:
    """The query parameters as a wire type; unknown and repeated ones are refused.

    Raises ApiError: 400 where the query can't be read, 422 with the parameter's name.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=32,
        )
    except ValueError as error:
        raise ApiError(
            ProblemCode.MALFORMED, "The query can't be read; write `name=value`, joined by `&`."
        ) from error
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ApiError.field(name, "The parameter stands more than once.")
        values[name] = value
    for name in values:
        if name not in wire.__struct_fields__:  # type: ignore[attr-defined]
            known = ", ".join(wire.__struct_fields__) or "none"  # type: ignore[attr-defined]
            raise ApiError.field(name, f"The parameter is not known here (known: {known}).")
    try:
        return msgspec.convert(values, wire, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, wire, parameters=True) from error


def decode_patch(body: bytes, target: Any, wire: type[T]) -> T:
    """The outcome of an RFC 7396 merge patch on a wire object, decoded as strictly as a whole one.

    Raises ApiError as decode_body does.
    """
    if not body:
        raise ApiError(ProblemCode.MALFORMED, "The request needs a JSON body.")
    try:
        patch = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    if not isinstance(patch, dict):
        raise ApiError.field("", "A merge patch here is a JSON object.")
    try:
        return msgspec.convert(merge_patch(msgspec.to_builtins(target), patch), wire)
    except msgspec.ValidationError as error:
        raise _invalid(error, wire) from error


def merge_patch(target: Any, patch: Any, depth: int = 0) -> Any:
    """RFC 7396: objects are merged member by member, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    if depth > _MAX_DEPTH:
        raise ApiError.field("", f"The patch is nested deeper than {_MAX_DEPTH} objects.")
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value, depth + 1)
    return merged


def pointer_of(path: str) -> str:
    """msgspec's `$.spec.disks[0].bus` as the JSON pointer `/spec/disks/0/bus`.

    A member of a mapping (`[...]`), whose name msgspec doesn't tell, ends the pointer.
    """
    steps: list[str] = []
    for match in _STEP.finditer(path):
        if match[2] == "...":
            break
        steps.append(match[1] or match[2])
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def in_words(error: msgspec.ValidationError, wire: Any) -> str:
    """What the error says, with a regular expression's meaning in its place."""
    text = str(error)
    match = _REGEX.search(text)
    if match is None:
        return text
    words = _meaning(wire, str(ast.literal_eval(match[1])))
    return text if words is None else f"{text[: match.start()]}{words}{text[match.end() :]}"


def _meaning(wire: Any, pattern: str) -> str | None:
    """What a type says of its strings that have this pattern."""
    if pattern in (PRINTABLE, PRINTABLE_LINES, PRINTABLE_WITH_TABS):
        return "Control and bidirectional control characters are not allowed here"
    from msgspec import inspect

    seen: set[type] = set()
    left: list[Any] = [inspect.type_info(wire)]
    while left:
        now = left.pop()
        if isinstance(now, inspect.Metadata):
            told = now.extra_json_schema or {}
            found = isinstance(now.type, inspect.StrType) and now.type.pattern == pattern
            if found and "description" in told:
                such = f" such as {told['examples'][0]}" if told.get("examples") else ""
                return f"Not of the form{such} ({str(told['description']).rstrip('.')})"
            left.append(now.type)
        elif isinstance(now, inspect.StructType) and now.cls not in seen:
            seen.add(now.cls)
            left += [field.type for field in now.fields]
        elif isinstance(now, inspect.UnionType):
            left += now.types
        elif isinstance(now, inspect.VarTupleType | inspect.ListType):
            left.append(now.item_type)
        elif isinstance(now, inspect.DictType):
            left += (now.key_type, now.value_type)
    return None


def _invalid(error: msgspec.ValidationError, wire: Any, *, parameters: bool = False) -> ApiError:
    text = in_words(error, wire)
    if match := _UNKNOWN.match(text):
        pointer = f"{pointer_of(match['path'] or '$')}/{_escape(match['name'])}"
        detail = "The field is not known here."
    elif match := _MISSING.match(text):
        pointer = f"{pointer_of(match['path'] or '$')}/{_escape(match['name'])}"
        detail = "The parameter is required." if parameters else "The field is required."
    elif match := _AT.match(text):
        pointer = pointer_of(match["path"])
        detail = (f"A member's name: {match['what']}" if match["key"] else match["what"]) + "."
    else:
        pointer, detail = "", f"{text}."
    if parameters:
        pointer = pointer.removeprefix("/")
    return ApiError(
        ProblemCode.INVALID,
        f"{pointer or 'The body'}: {detail}",
        errors=(FieldError(pointer=pointer, detail=detail),),
    )


def _malformed(error: Exception) -> ApiError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ApiError(ProblemCode.MALFORMED, f"The body is not JSON in UTF-8: {reason}.")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
