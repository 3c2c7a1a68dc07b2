"""The stick is not written in steady state, by the emulator's own count and by the API's."""

from __future__ import annotations

import pytest

from tests.boot.idle_stick import IDLE_S, IdleStick


@pytest.mark.timeout(600)
def test_the_stick_is_not_written_over_five_idle_minutes(idle_stick: IdleStick) -> None:
    before = idle_stick.begin()
    after = idle_stick.after_five_minutes()
    assert after.time_s - before.time_s >= IDLE_S
    assert after.operations_outside == before.operations_outside
    assert after.bytes_outside == before.bytes_outside
    assert after.bytes_inside == before.bytes_inside


def test_the_appliance_counts_what_the_stick_counts(idle_stick: IdleStick) -> None:
    count = idle_stick.begin()
    assert count.bytes_outside > 0, "the first start and the claim are written to the stick"
    assert count.bytes_inside == count.bytes_outside
