"""Strict decoding of JSON bodies, queries and merge patches, with pointers to all that is wrong."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast, get_origin
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect

from remote_api.schema import OBSERVED, ApiError, HttpCode, ObjectBody, asked_of
from remote_api.schema.violations import MAX_VIOLATIONS, examined
from vmkernel.control.lists import wrong_with
from vmkernel.model import FieldCode, FieldError, Listing

__all__ = [
    "check_id",
    "check_patch",
    "convert",
    "decode_body",
    "decode_patch",
    "decode_query",
    "merge_patch",
]

T = TypeVar("T")

_MAX_DEPTH = 32
_MAX_PARAMETERS = 64
"""A list of VMs takes 34: every filter once, and 16 label selectors."""


def decode_body(body: bytes, wire: type[T]) -> T:
    """A JSON body as a wire type.

    Raises ApiError: 400 if it isn't JSON, 422 with a pointer to each invalid value.
    """
    if not body:
        raise ApiError(HttpCode.MALFORMED, "The request needs a JSON body.")
    try:
        return msgspec.json.decode(body, type=wire)
    except msgspec.ValidationError:
        return convert(_json(body), wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def convert(value: Any, wire: type[T], *, at: str = "") -> T:
    """A value made of what JSON has as a wire type; `at` points to it. Raises ApiError (422)."""
    try:
        return msgspec.convert(value, wire)
    except msgspec.ValidationError as error:
        try:
            taken, wrong = examined(value, wire, at=at)
        except RecursionError as deep:
            raise _malformed(deep) from deep
        if wrong:
            raise ApiError.fields(wrong) from error
        return _converted(taken, wire, at)


def decode_query(query: bytes, wire: type[T]) -> T:
    """The query parameters as a wire type; unknown ones are refused, and repeated ones, unless
    the type has a list of them.

    Raises ApiError: 400 where the query can't be read, 422 with the parameters' names.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError as error:
        raise ApiError(
            HttpCode.MALFORMED, "The query can't be read; write `name=value`, joined by `&`."
        ) from error
    values: dict[str, Any] = dict(pairs)
    names = [name for name, _ in pairs]
    listing: Listing | None = getattr(wire, "LISTING", None)
    repeated = set(_lists(cast(Any, wire)))
    if listing is not None and listing.labels:
        repeated.add("label")
    wrong = [
        FieldError(
            pointer=name,
            detail="The parameter is given more than once.",
            code=FieldCode.DUPLICATE,
        )
        for name in values
        if names.count(name) > 1 and name not in repeated
    ]
    for name in repeated & values.keys():
        values[name] = [text for given, text in pairs if given == name]
    try:
        taken = msgspec.convert(values, wire, strict=False)
    except msgspec.ValidationError:
        _, more = examined(values, wire, texts=True)
        wrong += [msgspec.structs.replace(each, pointer=_parameter(each.pointer)) for each in more]
    if listing is not None:
        known = {each.pointer for each in wrong}
        asked = asked_of(listing, values)
        wrong += [each for each in wrong_with(listing, asked) if each.pointer not in known]
    if wrong:
        raise ApiError.fields(wrong[:MAX_VIOLATIONS])
    return taken


@cache
def _lists(wire: Any) -> frozenset[str]:
    """The parameters that may be given more than once."""
    return frozenset(
        each.encode_name
        for each in inspect.type_info(wire).fields  # type: ignore[attr-defined]
        if isinstance(each.type, inspect.CollectionType)
        or (
            isinstance(each.type, inspect.Metadata)
            and isinstance(each.type.type, inspect.CollectionType)
        )
    )


def _parameter(pointer: str) -> str:
    """The name of the parameter that a pointer leads into."""
    return pointer[1:].partition("/")[0]


def take_dry_run(query: bytes) -> tuple[bool, bytes]:
    """Whether a query asks for a dry run, and the query without that parameter.

    Raises ApiError (422) for anything but one `dry_run=true` or `dry_run=false`.
    """
    parts = query.split(b"&")
    mine = [part.partition(b"=")[2] for part in parts if part.partition(b"=")[0] == b"dry_run"]
    if not mine:
        return False, query
    if len(mine) > 1 or mine[0] not in (b"true", b"false"):
        raise ApiError.field("dry_run", "Give it once, as true or false.")
    rest = [part for part in parts if part.partition(b"=")[0] != b"dry_run"]
    return mine[0] == b"true", b"&".join(rest)


def decode_patch(body: bytes, target: Any, wire: type[T]) -> T:
    """The outcome of an RFC 7396 merge patch on a wire object, decoded as strictly as a whole one.

    Raises ApiError as decode_body does.
    """
    return convert(merge_patch(msgspec.to_builtins(target), _patch(body, wire)), wire)


def check_patch(body: bytes, wire: Any) -> None:
    """Raise ApiError for faults of a merge patch that don't depend on the object."""
    _, wrong = examined(_patch(body, wire), wire, partial=True)
    if wrong:
        raise ApiError.fields(wrong)


def check_id(body: Any, path: str) -> None:
    """Raise ApiError (422) if an object that is sent back is another one than its path names."""
    name = path.rpartition("/")[2]
    if isinstance(body, ObjectBody) and body.id not in (msgspec.UNSET, name):
        raise ApiError.field("/id", f"The path names {name}; send the body there, or leave it out.")


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


def _patch(body: bytes, wire: Any) -> dict[str, Any]:
    if not body:
        raise ApiError(HttpCode.MALFORMED, "The request needs a JSON body.")
    patch = _json(body)
    if not isinstance(patch, dict):
        raise ApiError.field("", "A merge patch here is a JSON object.")
    if issubclass(get_origin(wire) or wire, ObjectBody) and (
        fixed := [name for name in OBSERVED if name in patch]
    ):
        # In the whole object that a PUT brings back they say nothing; here they would be a wish.
        raise ApiError.fields(
            [
                FieldError(
                    pointer=f"/{name}",
                    detail="A patch can't change this field.",
                    code=FieldCode.READ_ONLY,
                )
                for name in fixed
            ]
        )
    return patch


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def _converted(value: Any, wire: type[T], at: str) -> T:
    try:
        return msgspec.convert(value, wire)
    except msgspec.ValidationError as error:
        raise ApiError.field(at, f"{error}.") from error


def _malformed(error: Exception) -> ApiError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ApiError(HttpCode.MALFORMED, f"The body is not JSON in UTF-8: {reason}.")
