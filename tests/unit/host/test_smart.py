"""What smartctl's reports come to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vmkernel.host.runner import Runner
from vmkernel.host.smart import judge, read_health
from vmkernel.model import DiskHealth, HealthState

OK, WARNING, FAILING, UNKNOWN = (
    HealthState.OK,
    HealthState.WARNING,
    HealthState.FAILING,
    HealthState.UNKNOWN,
)


def _nvme(**log: Any) -> dict[str, Any]:
    health = {
        "critical_warning": 0,
        "temperature": 35,
        "available_spare": 100,
        "available_spare_threshold": 10,
        "percentage_used": 3,
        "data_units_written": 51234567,
        "power_on_hours": 4321,
        "media_errors": 0,
        "num_err_log_entries": 17,
        **log,
    }
    return {
        "smartctl": {"version": [7, 4], "exit_status": 0},
        "device": {"name": "/dev/nvme0n1", "type": "nvme", "protocol": "NVMe"},
        "smart_status": {"passed": not health["critical_warning"]},
        "nvme_smart_health_information_log": health,
        "temperature": {"current": 35},
        "power_on_time": {"hours": 4321},
    }


def _row(number: int, name: str, raw: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "value": 100,
        "worst": 100,
        "thresh": 10,
        "when_failed": "",
        "flags": {"prefailure": True},
        "raw": {"value": raw, "string": str(raw)},
        **more,
    }


def _ata(*rows: dict[str, Any], passed: object = True, **more: Any) -> dict[str, Any]:
    return {
        "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
        "smart_status": {"passed": passed},
        "ata_smart_attributes": {"revision": 16, "table": list(rows)},
        "temperature": {"current": 41},
        "power_on_time": {"hours": 100},
        **more,
    }


@pytest.mark.parametrize(
    ("report", "state", "reason"),
    [
        (_nvme(), OK, None),
        (_nvme(percentage_used=90), WARNING, "90 %"),
        (_nvme(percentage_used=255), WARNING, "255 %"),
        (_nvme(media_errors=2), WARNING, "2 errors"),
        (_nvme(critical_warning=2), WARNING, "temperature"),
        (_nvme(critical_warning=1), FAILING, "spare"),
        (_nvme(critical_warning=4), FAILING, "reliability"),
        (_nvme(critical_warning=8), FAILING, "writes"),
        (_nvme(critical_warning=16), FAILING, "backup"),
        (_ata(_row(5, "Reallocated_Sector_Ct", 0)), OK, None),
        (_ata(_row(5, "Reallocated_Sector_Ct", 8)), WARNING, "8 sectors were replaced"),
        (_ata(_row(197, "Current_Pending_Sector", 1)), WARNING, "1 sectors can't be read"),
        (_ata(_row(198, "Offline_Uncorrectable", 4)), WARNING, "4 errors"),
        (_ata(_row(5, "Reallocated", 0, when_failed="now")), FAILING, "Reallocated"),
        (_ata(_row(194, "Temperature", 0, when_failed="past")), OK, None),
        (_ata(passed=False), FAILING, "reports that it is failing"),
        (_ata(endurance_used={"current_percent": 95}), WARNING, "95 %"),
        ({"smart_status": {"passed": True}, "scsi_grown_defect_list": 3}, WARNING, "3 sectors"),
        (
            {
                "smart_status": {"passed": True},
                "scsi_error_counter_log": {"read": {"total_uncorrected_errors": 1}, "write": {}},
            },
            WARNING,
            "1 errors",
        ),
        (
            {"smartctl": {"messages": [{"string": "Unknown USB bridge", "severity": "error"}]}},
            UNKNOWN,
            "USB bridge",
        ),
        ({}, UNKNOWN, "nothing"),
    ],
)
def test_verdicts(report: Mapping[str, Any], state: HealthState, reason: str | None) -> None:
    health = judge(report)
    assert health.state is state, health
    assert (health.reason is None) if reason is None else (reason in (health.reason or ""))


def test_figures_in_common_terms() -> None:
    nvme = judge(_nvme())
    assert (nvme.temperature_celsius, nvme.wear_percent, nvme.spare_percent) == (35, 3, 100)
    assert nvme.power_on_hours == 4321
    packed = _row(5, "Reallocated_Sector_Ct", 0x0002_0000_0000_0007)
    assert judge(_ata(packed)).reallocated_sectors == 7


@pytest.mark.parametrize(
    "report",
    [
        {"smart_status": [], "temperature": 5, "ata_smart_attributes": {"table": "x"}},
        {"smart_status": {"passed": "yes"}, "temperature": {"current": "hot"}},
        {"ata_smart_attributes": {"table": [None, {"id": "5"}, {"id": 5, "raw": 3}]}},
        {"nvme_smart_health_information_log": {"critical_warning": True, "percentage_used": None}},
        {"smartctl": {"messages": [3, {"string": 4}]}, "power_on_time": {"hours": 1.5}},
    ],
)
def test_odd_reports_are_no_surprise(report: Mapping[str, Any]) -> None:
    health = judge(report)
    assert health.state in (UNKNOWN, OK)
    assert health.temperature_celsius is None
    assert health.reallocated_sectors is None


def _program(folder: Path, script: str) -> Runner:
    program = folder / "smartctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Runner({"smartctl": program})


@pytest.mark.parametrize(
    ("script", "check"),
    [
        ("exit 97", lambda health: health is None),
        (
            'echo \'{"smart_status": {"passed": false}}\'; exit 8',
            lambda h: h.state is FAILING,
        ),
        ("echo nonsense; exit 1", lambda h: h.state is UNKNOWN),
        ("echo []", lambda h: h.state is UNKNOWN),
    ],
)
def test_the_program_is_asked(
    tmp_path: Path, script: str, check: Callable[[DiskHealth | None], bool]
) -> None:
    found = asyncio.run(read_health(_program(tmp_path, script), Path("/dev/null")))
    assert check(found), found


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    runner = Runner({"smartctl": tmp_path / "none"})
    found = asyncio.run(read_health(runner, Path("/dev/null")))
    assert found is not None
    assert found.state is UNKNOWN
