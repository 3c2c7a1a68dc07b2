"""Encoding of replies. If something can't be encoded, only that is lost: one item of a list (see
`lists/encoded.py`), not the list; one request, not the connection's task or the host.

What comes from outside is decoded into records with ranges at the entrance, so nothing here should
ever fail: this is the last line of defence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from vmkernel.control.wire import MAX_FRAME_BYTES
from vmkernel.model import ErrorCode, Event, MicaError

__all__ = ["encodable", "encode_event", "encode_reply"]

_log = logging.getLogger(__name__)
_encoder = msgspec.msgpack.Encoder()
Item = TypeVar("Item")

_ROOM_BYTES = 64 << 10
"""Reserved in a frame for what surrounds the value."""
_BROKEN = (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError)


def encode_reply(value: object) -> msgspec.Raw:
    """Encode the value of a reply. Raises MicaError if it is too large for a frame."""
    data = _encoder.encode(value)
    if len(data) > MAX_FRAME_BYTES - _ROOM_BYTES:
        raise MicaError(
            ErrorCode.UNSUPPORTED,
            f"The answer has {len(data) >> 20} MiB, which is more than can be sent at once: ask for"
            " less.",
        )
    return msgspec.Raw(data)


def encode_event(event: Event) -> msgspec.Raw | None:
    """Encode an event; None if it can't be encoded: it is then skipped."""
    encoded = _item(event)
    return None if encoded is None else msgspec.Raw(encoded)


def encodable(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items that can be encoded."""
    return tuple(item for item in items if _item(item) is not None)


def _item(item: Any) -> bytes | None:
    try:
        return _encoder.encode(item)
    except _BROKEN as error:
        name = getattr(item, "id", type(item).__name__)
        _log.error("%s %r is left out, as it can't be sent: %s", type(item).__name__, name, error)
        return None
