"""The health that a disk reports, by `smartctl --json` (smartmontools 7): read and judged.

The fields are those of smartctl's JSON output, which names what ATA, NVMe and SCSI disks have in
common (`smart_status`, `temperature`, `power_on_time`, `endurance_used`, `spare_available`) and
keeps the rest by protocol (`nvme_smart_health_information_log`, `ata_smart_attributes`, `scsi_*`).
Every one may be missing, or of another type than expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from vmkernel.decoding import UndecodableError, decode_document
from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner
from vmkernel.model import DiskHealth, HealthState

__all__ = ["WORN_PERCENT", "judge", "read_health"]

_TIMEOUT_S = 30.0
_ASLEEP_STATUS = 97
"""The exit code that smartctl is told to use if the disk's motor is off; it has none of its own for
that."""
WORN_PERCENT = 90
_REALLOCATED, _PENDING, _UNCORRECTABLE = 5, 197, 198
_NVME_SPARE, _NVME_HOT, _NVME_BROKEN, _NVME_READ_ONLY, _NVME_BACKUP = 1, 2, 4, 8, 16


async def read_health(runner: Runner, device: Path) -> DiskHealth | None:
    """Ask a disk; a sleeping one is left asleep (None). Never raises, whatever a disk does."""
    words = ["smartctl", "--json=c", f"--nocheck=standby,{_ASLEEP_STATUS}"]
    words += ["--info", "--health", "--attributes", "--log=ssd"]
    try:
        done = await runner.run([*words, device], timeout_s=_TIMEOUT_S, ok=tuple(range(256)))
    except CommandError as error:
        return DiskHealth(state=HealthState.UNKNOWN, reason=str(error))
    if done.returncode == _ASLEEP_STATUS:
        return None
    try:
        report = decode_document(done.stdout)
    except UndecodableError:
        return DiskHealth(state=HealthState.UNKNOWN, reason="smartctl gave no report.")
    return judge(report)


def judge(report: Mapping[str, Any]) -> DiskHealth:
    """The health that a report amounts to (pure)."""
    nvme = _mapping(report, "nvme_smart_health_information_log")
    raw = _ata_raw_values(report)
    errors = _number(nvme, "media_errors")
    if errors is None:
        errors = raw.get(_UNCORRECTABLE)
    if errors is None:
        errors = _scsi_uncorrected(report)
    wear = _number(report, "endurance_used", "current_percent")
    if wear is None:
        wear = _number(nvme, "percentage_used")
    if wear is None:
        wear = _number(report, "scsi_percentage_used_endurance_indicator")
    spare = _number(report, "spare_available", "current_percent")
    if spare is None:
        spare = _number(nvme, "available_spare")
    reallocated = raw.get(_REALLOCATED)
    if reallocated is None:
        reallocated = _number(report, "scsi_grown_defect_list")
    health = DiskHealth(
        state=HealthState.OK,
        temperature_celsius=_number(report, "temperature", "current"),
        wear_percent=wear,
        spare_percent=spare,
        power_on_hours=_number(report, "power_on_time", "hours"),
        reallocated_sectors=reallocated,
        pending_sectors=raw.get(_PENDING),
        media_errors=errors,
    )
    state, reason = _verdict(report, nvme, health)
    return msgspec.structs.replace(health, state=state, reason=reason)


def _verdict(
    report: Mapping[str, Any], nvme: Mapping[str, Any], health: DiskHealth
) -> tuple[HealthState, str | None]:
    warning = _number(nvme, "critical_warning") or 0
    passed = _mapping(report, "smart_status").get("passed")
    for bit, reason in (
        (_NVME_BROKEN, "Its reliability is degraded."),
        (_NVME_READ_ONLY, "It no longer accepts writes."),
        (_NVME_BACKUP, "Its volatile memory backup has failed."),
        (_NVME_SPARE, "Its spare blocks are used up."),
    ):
        if warning & bit:
            return HealthState.FAILING, reason
    if failing := _failing_attribute(report):
        return HealthState.FAILING, f"Its attribute {failing} is past its limit."
    if passed is False and not warning:
        return HealthState.FAILING, "It reports that it is failing."
    for count, what in (
        (health.pending_sectors, "sectors can't be read"),
        (health.media_errors, "errors have lost data"),
        (health.reallocated_sectors, "sectors were replaced"),
    ):
        if count:
            return HealthState.WARNING, f"{count} {what}."
    if health.wear_percent is not None and health.wear_percent >= WORN_PERCENT:
        return HealthState.WARNING, f"{health.wear_percent} % of its endurance is used."
    if warning & _NVME_HOT:
        return HealthState.WARNING, "Its temperature is out of bounds."
    if passed is True or nvme:
        return HealthState.OK, None
    return HealthState.UNKNOWN, _message(report) or "It reports nothing about its health."


def _failing_attribute(report: Mapping[str, Any]) -> str | None:
    for row in _ata_rows(report):
        flags = _mapping(row, "flags")
        if row.get("when_failed") == "now" and flags.get("prefailure") is True:
            return str(row.get("name", row.get("id")))[:40]
    return None


def _ata_rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    table = _mapping(report, "ata_smart_attributes").get("table")
    return [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []


def _ata_raw_values(report: Mapping[str, Any]) -> dict[int, int]:
    """The raw values that are plain counts; vendors pack more into their upper bytes."""
    found = {}
    for row in _ata_rows(report):
        number, value = row.get("id"), _number(row, "raw", "value")
        if isinstance(number, int) and value is not None:
            found[number] = value & 0xFFFF_FFFF
    return found


def _scsi_uncorrected(report: Mapping[str, Any]) -> int | None:
    log = _mapping(report, "scsi_error_counter_log")
    counts = [_number(log, kind, "total_uncorrected_errors") for kind in ("read", "write")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _message(report: Mapping[str, Any]) -> str | None:
    messages = _mapping(report, "smartctl").get("messages")
    for message in messages if isinstance(messages, list) else []:
        text = message.get("string") if isinstance(message, dict) else None
        if isinstance(text, str) and text.strip():
            return text.strip()[:200]
    return None


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: Mapping[str, Any], *path: str) -> int | None:
    """A count at a path; None if it is missing or isn't a count."""
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, int) or found < -300:
        return None
    return int(found)
