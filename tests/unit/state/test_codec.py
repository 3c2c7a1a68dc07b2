"""The bytes of a slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.state.codec import HEADER_BYTES, Header, SlotFault, Snapshot, decode, encode, peek

snapshots = st.builds(
    Snapshot,
    schema=st.integers(1, 2**32 - 1),
    generation=st.integers(1, 2**64 - 1),
    payload=st.binary(max_size=600),
)


@given(snapshots, st.binary(max_size=64))
def test_what_was_encoded_is_decoded_whatever_follows(snapshot: Snapshot, rest: bytes) -> None:
    data = encode(snapshot)
    assert len(data) == HEADER_BYTES + len(snapshot.payload)
    assert decode(data + rest) == snapshot
    header = peek(data)
    assert isinstance(header, Header)
    assert (header.schema, header.generation) == (snapshot.schema, snapshot.generation)


@given(snapshots, st.data())
def test_any_flipped_bit_is_noticed(snapshot: Snapshot, data: st.DataObject) -> None:
    encoded = bytearray(encode(snapshot))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    assert isinstance(decode(bytes(encoded)), SlotFault)


@given(snapshots, st.data())
def test_any_missing_end_is_noticed(snapshot: Snapshot, data: st.DataObject) -> None:
    encoded = encode(snapshot)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    assert isinstance(decode(encoded[:cut]), SlotFault)


@given(st.binary(max_size=300))
def test_noise_is_no_snapshot(noise: bytes) -> None:
    assert isinstance(decode(noise), SlotFault)


@pytest.mark.parametrize("data", [b"", bytes(4096), b"XFSB" + bytes(4092)])
def test_what_was_never_ours_is_blank(data: bytes) -> None:
    assert decode(data) is SlotFault.BLANK
