"""What the end of a QEMU means for its VM."""

from __future__ import annotations

import pytest

from vmkernel.model import VmState
from vmkernel.qemu import GuestEnded
from vmkernel.vm.machine.exit_reason import verdict
from vmkernel.vm.machine.restart_policy import End


@pytest.mark.parametrize(
    ("cause", "by_guest", "state", "end", "words"),
    [
        ("guest-panic", True, VmState.CRASHED, End.FAILED, "panic"),
        ("host-qmp-quit", False, VmState.STOPPED, End.ASKED, ""),
        ("guest-shutdown", True, VmState.STOPPED, End.GUEST, ""),
        ("host-signal", False, VmState.STOPPED, End.FAILED, "from outside (host-signal)"),
    ],
)
def test_an_end_that_qemu_announced(
    cause: str, by_guest: bool, state: VmState, end: End, words: str
) -> None:
    found = verdict(GuestEnded(by_guest=by_guest, cause=cause), "exit code 1", lambda: "said")
    assert (found[0], found[2]) == (state, end)
    assert words in (found[1] or "")


def test_an_end_without_notice_says_what_is_known() -> None:
    assert verdict(None, "signal 9", lambda: "no memory") == (
        VmState.CRASHED,
        "QEMU ended unexpectedly (signal 9: no memory).",
        End.FAILED,
    )
    assert "no message" in (verdict(None, None, lambda: "")[1] or "")
