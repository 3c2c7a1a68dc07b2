"""Answers as octets. What can't be encoded costs itself: one item, never what has it (of lists see
`lists/encoded.py`); one request, never the connection's task or the host.

What comes from outside is decoded into records with ranges where it enters, so nothing here should
ever fail: this is the last line.
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
"""What a frame holds besides its value."""
_BROKEN = (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError)


def encode_reply(value: object) -> msgspec.Raw:
    """A reply's value. Raises MicaError if it is too large for a frame."""
    data = _encoder.encode(value)
    if len(data) > MAX_FRAME_BYTES - _ROOM_BYTES:
        raise MicaError(
            ErrorCode.UNSUPPORTED,
            f"The answer has {len(data) >> 20} MiB, which is more than can be sent at once: ask for"
            " less.",
        )
    return msgspec.Raw(data)


def encode_event(event: Event) -> msgspec.Raw | None:
    """An event; None for one that can't be sent, which is passed over."""
    encoded = _item(event)
    return None if encoded is None else msgspec.Raw(encoded)


def encodable(items: Iterable[Item]) -> tuple[Item, ...]:
    """Those that can be sent."""
    return tuple(item for item in items if _item(item) is not None)


def _item(item: Any) -> bytes | None:
    try:
        return _encoder.encode(item)
    except _BROKEN as error:
        name = getattr(item, "id", type(item).__name__)
        _log.error("%s %r is left out, as it can't be sent: %s", type(item).__name__, name, error)
        return None
