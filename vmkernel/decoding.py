"""JSON that others wrote, into records: the one way in.

Whatever is wrong with it (no JSON, no UTF-8, the wrong form, a number out of its range, nested so
deeply that no parser follows) is one exception, whose text may be shown.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from vmkernel.text import clean

__all__ = ["UndecodableError", "convert_to", "decode_document", "decode_json"]

T = TypeVar("T")
_WORDS = 200
_NONSENSE = (msgspec.MsgspecError, ValueError, RecursionError)


class UndecodableError(ValueError):
    """The data can't be decoded."""


def decode_json(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """JSON as a `kind`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except _NONSENSE as error:
        raise _undecodable(error) from error


def decode_document(data: bytes) -> dict[str, Any]:
    """A JSON object without a type, to be upgraded from an earlier schema before it is typed."""
    return decode_json(data, dict[str, Any])


def convert_to(document: object, kind: type[T]) -> T:
    """Such a document as a `kind`."""
    try:
        return msgspec.convert(document, type=kind)
    except _NONSENSE as error:
        raise _undecodable(error) from error


def _undecodable(error: Exception) -> UndecodableError:
    if isinstance(error, RecursionError):
        return UndecodableError("it is nested too deeply")
    return UndecodableError(clean(str(error), _WORDS) or "it makes no sense")
