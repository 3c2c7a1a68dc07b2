"""What an ordinary process loses to the machine, and what is left of a waiting time without it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.framework.control_process import ControlProcess


@pytest.mark.parametrize(
    ("since", "until", "lost_s"),
    [
        (10.0, 11.0, 0.4),  # the whole turn lies in it
        (0.0, 100.0, 0.6),  # both do
        (10.9, 11.0, 0.0),  # before or after
        (10.4, 10.5, 0.1),  # no more than the span itself
    ],
)
def test_a_span_loses_what_the_turns_in_it_lost(since: float, until: float, lost_s: float) -> None:
    control = ControlProcess()
    control.note(10.2, 10.7, 0.4)
    control.note(20.0, 20.3, 0.2)
    assert control.lost_s(since, until) == pytest.approx(lost_s)


def test_a_process_that_stands_still_loses_that_time() -> None:
    with ControlProcess() as control:
        began = time.monotonic()
        os.kill(control.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(control.pid, signal.SIGCONT)
        took, own = control.own_s([(began, time.monotonic())])
    assert 0 <= own[0] < took[0] - 0.3
