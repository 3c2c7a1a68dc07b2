"""One slot of the state log as bytes: pure, no input or output.

offset  octets  field (big endian)
     0       8  magic `MICASTAT`
     8       4  format of this header: 1
    12       4  schema version of the payload
    16       8  generation, from 1 up
    24       4  length of the payload
    28       4  zero
    32      32  SHA-256 of the header with this field zeroed, then of the payload
    64  length  payload
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["HEADER_BYTES", "Header", "SlotFault", "Snapshot", "decode", "encode", "peek"]

_MAGIC = b"MICASTAT"
_FORMAT = 1
_FIELDS = struct.Struct(">8sIIQII32s")
HEADER_BYTES = _FIELDS.size
_NO_DIGEST = bytes(32)


class SlotFault(StrEnum):
    """Why a slot holds no snapshot."""

    BLANK = "blank"
    """All zero, or never ours."""
    DAMAGED = "damaged"
    """It begins like one of ours and does not hold together: a torn write or bad flash."""


@dataclass(frozen=True)
class Header:
    """The header of a slot; not verified until the whole slot is decoded."""

    schema: int
    generation: int
    length: int
    digest: bytes

    @property
    def total_bytes(self) -> int:
        """Header and payload together."""
        return HEADER_BYTES + self.length


@dataclass(frozen=True)
class Snapshot:
    """A payload as it was committed."""

    schema: int
    generation: int
    payload: bytes


def _digest(schema: int, generation: int, payload: bytes | memoryview) -> bytes:
    head = _FIELDS.pack(_MAGIC, _FORMAT, schema, generation, len(payload), 0, _NO_DIGEST)
    state = hashlib.sha256(head)
    state.update(payload)
    return state.digest()


def encode(snapshot: Snapshot) -> bytes:
    """The slot's bytes, without padding."""
    digest = _digest(snapshot.schema, snapshot.generation, snapshot.payload)
    head = _FIELDS.pack(
        _MAGIC,
        _FORMAT,
        snapshot.schema,
        snapshot.generation,
        len(snapshot.payload),
        0,
        digest,
    )
    return head + snapshot.payload


def peek(data: bytes) -> Header | SlotFault:
    """Read only the header."""
    if len(data) < HEADER_BYTES or data[: len(_MAGIC)] != _MAGIC:
        return SlotFault.BLANK
    _, form, schema, generation, length, zero, digest = _FIELDS.unpack_from(data)
    if form != _FORMAT or zero != 0 or generation == 0:
        return SlotFault.DAMAGED
    return Header(schema, generation, length, digest)


def decode(data: bytes) -> Snapshot | SlotFault:
    """Read and verify a slot; `data` may be longer than what was encoded."""
    header = peek(data)
    if isinstance(header, SlotFault):
        return header
    payload = memoryview(data)[HEADER_BYTES : header.total_bytes]
    if len(payload) != header.length:
        return SlotFault.DAMAGED
    if _digest(header.schema, header.generation, payload) != header.digest:
        return SlotFault.DAMAGED
    return Snapshot(header.schema, header.generation, bytes(payload))
