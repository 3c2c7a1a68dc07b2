"""Reading answers leniently: what a newer host adds is left out, what is there must be right."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

import msgspec
import msgspec.inspect as mi

from remote_api.client.errors import UnexpectedError

__all__ = ["read"]

T = TypeVar("T")


def read(data: bytes, wire: type[T]) -> T:
    """A JSON answer as a wire type. Raises UnexpectedError."""
    try:
        return msgspec.json.decode(data, type=wire)
    except msgspec.ValidationError:
        pass
    except msgspec.DecodeError as error:
        raise UnexpectedError(f"The answer is no JSON: {error}") from error
    try:
        return msgspec.convert(_known(msgspec.json.decode(data), _info(cast(Any, wire))), wire)
    except msgspec.ValidationError as error:
        raise UnexpectedError(f"The answer can't be read by this client: {error}") from error


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
