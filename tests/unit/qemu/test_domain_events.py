"""QMP's events as QEMU sends them, in the words of the VM's states."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vmkernel.qemu import (
    DiskError,
    GuestEnded,
    GuestPanicked,
    GuestReset,
    Paused,
    QemuEvent,
    QmpMessage,
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
    raw = msgspec.Raw(b"{}" if data is None else msgspec.json.encode(data))
    assert translate(QmpMessage(name, raw)) == event


@pytest.mark.parametrize(
    "name", ["SHUTDOWN", "RESET", "GUEST_PANICKED", "WATCHDOG", "BLOCK_IO_ERROR", "VSERPORT_CHANGE"]
)
@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"null",
        b"7",
        b'{"guest":7,"info":1,"action":[],"nospace":"x","id":{},"reason":null}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"reason": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_makes_no_sense_is_no_event(name: str, data: bytes) -> None:
    translate(QmpMessage(name, msgspec.Raw(data)))


def test_what_a_guest_chose_is_cleaned() -> None:
    data = {"device": "\x1b]0;x\x07disk0", "reason": "a\u202eb\n" + "c" * 10_000}
    event = translate(QmpMessage("BLOCK_IO_ERROR", msgspec.Raw(msgspec.json.encode(data))))
    assert isinstance(event, DiskError)
    assert event.device == "]0;xdisk0"
    assert event.detail.startswith("ab c")
    assert len(event.detail) == 256


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
