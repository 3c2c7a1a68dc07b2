"""QMP's events as QEMU sends them, in the words of the VM's states."""

from __future__ import annotations

from typing import Any

import pytest

from vmkernel.qemu import (
    DiskError,
    GuestEnded,
    GuestPanicked,
    GuestReset,
    Paused,
    QemuEvent,
    Resumed,
    RunState,
)
from vmkernel.qemu.domain_events import translate


@pytest.mark.parametrize(
    ("name", "data", "event"),
    [
        (
            "SHUTDOWN",
            {"guest": True, "reason": "guest-shutdown"},
            GuestEnded(by_guest=True, cause="guest-shutdown"),
        ),
        (
            "SHUTDOWN",
            {"guest": False, "reason": "host-signal"},
            GuestEnded(by_guest=False, cause="host-signal"),
        ),
        ("RESET", {"guest": True, "reason": "guest-reset"}, GuestReset(by_guest=True)),
        ("STOP", None, Paused()),
        ("RESUME", None, Resumed()),
        (
            "GUEST_PANICKED",
            {"action": "run", "info": {"type": "pvpanic"}},
            GuestPanicked("pvpanic"),
        ),
        ("GUEST_PANICKED", {"action": "run"}, GuestPanicked("run")),
        (
            "BLOCK_IO_ERROR",
            {
                "device": "",
                "qom-path": "/machine/peripheral/disk0",
                "operation": "write",
                "action": "stop",
                "nospace": True,
                "reason": "No space left on device",
            },
            DiskError("/machine/peripheral/disk0", no_space=True, detail="No space left on device"),
        ),
        ("NIC_RX_FILTER_CHANGED", {"path": "x"}, None),
    ],
)
def test_translation(name: str, data: dict[str, Any] | None, event: QemuEvent | None) -> None:
    message: dict[str, Any] = {"event": name, "timestamp": {"seconds": 1, "microseconds": 2}}
    if data is not None:
        message["data"] = data
    assert translate(message) == event


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", RunState.RUNNING),
        ("prelaunch", RunState.PRELAUNCH),
        ("paused", RunState.PAUSED),
        ("io-error", RunState.IO_ERROR),
        ("suspended", RunState.PAUSED),
    ],
)
def test_run_states(status: str, state: RunState) -> None:
    assert RunState.of(status) is state
