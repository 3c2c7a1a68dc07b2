"""The ring of slots under every fault that a stick has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.state.ram_medium import SECTOR, PowerCutError, RamMedium
from vmkernel.model import ErrorCode
from vmkernel.state.codec import HEADER_BYTES, Snapshot, encode
from vmkernel.state.errors import StateError
from vmkernel.state.log import Found, StateLog

payloads = st.binary(min_size=1, max_size=3000)


def _torn(keep: list[bool]) -> object:
    """Keep the new sectors named by `keep`, the old ones elsewhere."""

    def tear(old: bytes, new: bytes) -> bytes:
        out = bytearray(old)
        for index in range(0, len(new), SECTOR):
            if keep[(index // SECTOR) % len(keep)]:
                out[index : index + SECTOR] = new[index : index + SECTOR]
        return bytes(out)

    return tear


def _newest(medium: RamMedium) -> bytes | None:
    found = StateLog(medium).load(1)
    return found.snapshot.payload if found.snapshot else None


@given(st.lists(payloads, max_size=12))
def test_the_newest_wins_and_slots_are_used_in_turn(history: list[bytes]) -> None:
    medium = RamMedium()
    log = StateLog(medium)
    log.load(1)
    for payload in history:
        log.append(1, payload)
        assert _newest(medium) == payload
    assert medium.writes == [number % 4 for number in range(len(history))]


@settings(max_examples=300)
@given(
    st.lists(payloads, min_size=1, max_size=6),
    payloads,
    st.lists(st.booleans(), min_size=1, max_size=8),
)
def test_a_torn_write_leaves_the_old_or_the_new(
    history: list[bytes], last: bytes, keep: list[bool]
) -> None:
    """Any subset of the sectors of the write that the power cut met may have been written."""
    medium = RamMedium()
    log = StateLog(medium)
    log.load(1)
    for payload in history:
        log.append(1, payload)
    medium.tear = _torn(keep)  # type: ignore[assignment]
    with pytest.raises(PowerCutError):
        log.append(1, last)
    medium.tear = None
    assert _newest(medium) in (history[-1], last)
    # Life goes on: the next commits are kept, and win.
    log = StateLog(medium)
    log.load(1)
    for payload in (b"after", b"later"):
        log.append(1, payload)
        assert _newest(medium) == payload


@given(st.lists(payloads, min_size=1, max_size=9), st.data())
def test_damage_in_one_slot_costs_at_most_that_commit(
    history: list[bytes], data: st.DataObject
) -> None:
    medium = RamMedium()
    log = StateLog(medium)
    log.load(1)
    for payload in history:
        log.append(1, payload)
    bit = data.draw(st.integers(0, len(medium.data) * 8 - 1))
    medium.data[bit // 8] ^= 1 << bit % 8
    kept = history[-2:] if len(history) > 1 else [history[-1], None]
    assert _newest(medium) in kept


@given(payloads, st.lists(st.booleans(), min_size=1, max_size=8))
def test_a_torn_very_first_write_is_a_first_boot_again(first: bytes, keep: list[bool]) -> None:
    medium = RamMedium()
    medium.tear = _torn(keep)  # type: ignore[assignment]
    with pytest.raises(PowerCutError):
        StateLog(medium).append(1, first)
    medium.tear = None
    found = StateLog(medium).load(1)
    assert not found.lost
    assert found.snapshot is None or found.snapshot.payload == first


def test_a_blank_medium_is_a_first_boot() -> None:
    assert StateLog(RamMedium()).load(1) == Found(None)


def test_all_slots_damaged_is_a_loss_and_no_first_boot() -> None:
    medium = RamMedium()
    log = StateLog(medium)
    for number in range(4):
        log.append(1, b"%d" % number)
    for slot in range(4):
        medium.data[slot * 4096 + HEADER_BYTES] ^= 1
    found = StateLog(medium).load(1)
    assert found.snapshot is None
    assert found.lost
    assert found.damaged == 4


def test_repeated_failures_do_not_wear_through_the_good_slots() -> None:
    medium = RamMedium()
    log = StateLog(medium)
    log.append(1, b"good")
    medium.tear = lambda old, new: new[:100] + old[100:]
    for _ in range(10):
        with pytest.raises(PowerCutError):
            log.append(1, b"x" * 500)
    assert set(medium.writes[1:]) == {1}
    assert _newest(medium) == b"good"


def test_a_write_that_failed_and_was_done_all_the_same_loses_to_the_next() -> None:
    medium = RamMedium()
    log = StateLog(medium)
    log.append(1, b"one")
    medium.tear = lambda _, new: new
    with pytest.raises(PowerCutError):
        log.append(1, b"told as failed")
    medium.tear = None
    log.append(1, b"two")
    assert _newest(medium) == b"two"


def test_a_newer_schema_is_left_and_the_newest_known_one_taken() -> None:
    medium = RamMedium()
    log = StateLog(medium)
    log.append(1, b"known")
    log.append(7, b"unknown")
    fresh = StateLog(medium)
    found = fresh.load(1)
    assert found.snapshot == Snapshot(1, 1, b"known")
    assert found.newer_schema == 7
    assert fresh.append(1, b"next") == 3
    assert _newest(medium) == b"next"


def test_only_newer_schemas_are_a_loss() -> None:
    medium = RamMedium()
    StateLog(medium).append(2, b"unknown")
    found = StateLog(medium).load(1)
    assert found.lost
    assert found.newer_schema == 2


def test_a_payload_that_does_not_fit_is_a_typed_error_and_writes_nothing() -> None:
    medium = RamMedium()
    log = StateLog(medium)
    log.append(1, bytes(log.capacity_bytes))
    with pytest.raises(StateError) as caught:
        log.append(1, bytes(log.capacity_bytes + 1))
    assert caught.value.problem.code is ErrorCode.INSUFFICIENT_RESOURCES
    assert medium.writes == [0]


def test_a_header_that_claims_more_than_the_slot_is_not_followed() -> None:
    medium = RamMedium()
    medium.data[: HEADER_BYTES + 8000] = encode(Snapshot(1, 9, bytes(8000)))
    assert StateLog(medium).load(1).snapshot is None
