"""The slice of programs that work on data from outside: limited, and there before vmkernel is."""

from __future__ import annotations

import asyncio
import configparser
from pathlib import Path

from vmkernel.adapters_appliance import _WORK_SLICE
from vmkernel.host.runner import Runner
from vmkernel.host.worker import Confinement, Workers

UNITS = Path(__file__).parents[3] / "appliance_build/image/rootfs/usr/lib/systemd/system"


def _unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_slice_has_limits_and_yields() -> None:
    settings = _unit("mica-work.slice")["Slice"]
    for name in ("MemoryHigh", "MemoryMax", "TasksMax", "CPUWeight", "IOWeight"):
        assert settings[name]
    assert settings["DevicePolicy"] == "closed"
    assert not [name for name in settings if name == "DeviceAllow"]
    assert int(settings["IOWeight"]) < 100
    assert int(settings["CPUWeight"]) < 100


def test_vmkernel_s_unit_brings_the_slice_that_it_moves_programs_to() -> None:
    unit = _unit("mica-vmkernel.service")
    name = Path(_WORK_SLICE).name
    assert name in unit["Unit"]["Wants"].split()
    assert name in unit["Unit"]["After"].split()
    assert (UNITS / name).exists()
    assert Path(_WORK_SLICE).parent.name == "mica.slice"  # by systemd's rule for names
    assert unit["Service"].get("ProtectControlGroups", "no") in ("no", "false")


def test_a_confined_program_ends_first_where_memory_is_short() -> None:
    workers = Workers(Runner())
    done = asyncio.run(
        workers.confined_runner.run(
            [*workers.prefix(Confinement(memory_bytes=1 << 30)), "cat", "/proc/self/oom_score_adj"],
            timeout_s=60,
        )
    )
    assert int(done.stdout) == 500
