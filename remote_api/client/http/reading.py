"""Reading responses leniently: fields that a newer host adds are ignored, known fields must be
valid.

A value that a set doesn't have yet is kept as text (`OpenEnum`).
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any, TypeVar, cast

import msgspec
import msgspec.inspect as mi

from remote_api.client.errors import UnexpectedError
from vmkernel.model import open_sets

__all__ = ["read"]

T = TypeVar("T")

_MAKING = Lock()


def read(data: bytes, wire: type[T]) -> T:
    """A JSON answer as a wire type. Raises UnexpectedError."""
    with open_sets():
        try:
            decoded: T = _decoder(wire).decode(data)
            return decoded
        except msgspec.ValidationError:
            pass
        except msgspec.DecodeError as error:
            raise UnexpectedError(f"the host's answer is not JSON: {error}") from error
        try:
            return msgspec.convert(_known(msgspec.json.decode(data), _info(cast(Any, wire))), wire)
        except msgspec.ValidationError as error:
            raise UnexpectedError(
                f"this version of mica can't read the host's answer: {error}"
            ) from error


def _decoder(wire: Any) -> msgspec.json.Decoder[Any]:
    """One decoder for each type, made by one thread at a time.

    Making it evaluates annotations, which ends CPython 3.11 if two threads do it at once.
    """
    with _MAKING:
        return _made(wire)


@cache
def _made(wire: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wire)


@cache
def _info(wire: Any) -> mi.Type:
    return mi.type_info(wire)


def _known(value: Any, info: mi.Type) -> Any:
    """`value` without the members that its type doesn't name."""
    if isinstance(info, mi.Metadata):
        return _known(value, info.type)
    if isinstance(info, mi.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in info.fields}
        return {name: _known(item, fields[name]) for name, item in value.items() if name in fields}
    if isinstance(info, mi.CollectionType | mi.VarTupleType) and isinstance(value, list):
        return [_known(item, info.item_type) for item in value]
    if isinstance(info, mi.DictType) and isinstance(value, dict):
        return {name: _known(item, info.value_type) for name, item in value.items()}
    if isinstance(info, mi.UnionType) and isinstance(value, dict | list):
        for member in info.types:
            member = member.type if isinstance(member, mi.Metadata) else member
            if not isinstance(member, mi.NoneType):
                return _known(value, member)
    return value
