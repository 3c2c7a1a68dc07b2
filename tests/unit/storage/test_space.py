"""When a datastore is told to be full, and which fields belong to which kind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.disk_world import all_drivers
from tests.unit.storage.world import World, run
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    ErrorCode,
    MicaError,
    NfsSpec,
    RaidLevel,
    SpaceLevel,
)
from vmkernel.storage.datastores.capacity import check_thresholds, next_level
from vmkernel.storage.datastores.entry import Space

DRIVERS = {driver.kind: driver for driver in all_drivers()}
OK, WARNING, CRITICAL = SpaceLevel.OK, SpaceLevel.WARNING, SpaceLevel.CRITICAL


@pytest.mark.parametrize(
    ("before", "used", "after"),
    [
        (OK, 79.9, OK),
        (OK, 80.0, WARNING),
        (OK, 95.0, CRITICAL),
        (WARNING, 79.0, WARNING),
        (WARNING, 78.0, WARNING),
        (WARNING, 77.9, OK),
        (WARNING, 94.9, WARNING),
        (CRITICAL, 93.5, CRITICAL),
        (CRITICAL, 92.9, WARNING),
        (CRITICAL, 10.0, OK),
    ],
)
def test_levels_have_hysteresis(before: SpaceLevel, used: float, after: SpaceLevel) -> None:
    assert next_level(before, used, 80, 95) is after


def test_usage_that_wavers_around_a_threshold_is_told_once() -> None:
    level, told = OK, 0
    for used in [79.9, 80.1] * 50:
        after = next_level(level, used, 80, 95)
        told += after is not level
        level = after
    assert told == 1


def test_used_percent_of_nothing_is_nothing() -> None:
    assert Space().used_percent == 0
    assert Space(200, 50).used_percent == 75


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        (DatastoreSpec(kind=DatastoreKind.LOCAL, path="/x"), "/spec/path"),
        (DatastoreSpec(kind=DatastoreKind.LOCAL, disk="a", disks=("b",)), "/spec/disks"),
        (DatastoreSpec(kind=DatastoreKind.LVM, disks=("a",), spares=("b",)), "/spec/spares"),
        (
            DatastoreSpec(kind=DatastoreKind.LVM, disks=("a",), raid_level=RaidLevel.RAID10),
            "/spec/raid_level",
        ),
        (
            DatastoreSpec(kind=DatastoreKind.RAID, nfs=NfsSpec(server="a", export="/b")),
            "/spec/nfs",
        ),
        (DatastoreSpec(kind=DatastoreKind.NFS, disk="a"), "/spec/disk"),
        (
            DatastoreSpec(kind=DatastoreKind.DIRECTORY, path="/x", warning_percent=96),
            "/spec/warning_percent",
        ),
    ],
)
def test_fields_of_other_kinds_are_refused(spec: DatastoreSpec, pointer: str) -> None:
    with pytest.raises(MicaError) as caught:
        _check(spec)
    assert caught.value.problem.fields[0].pointer == pointer


def _check(spec: DatastoreSpec) -> None:
    DRIVERS[spec.kind].check_fields(spec)
    check_thresholds(spec.warning_percent, spec.critical_percent)


def test_a_full_datastore_is_found_and_told_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        capacity = world.storage.capacity
        entry = world.storage.datastores.entries["d"]
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path="/x")
        entry.stored = msgspec.structs.replace(entry.stored, spec=spec)
        with world.bus.subscribe() as events:
            for free in (50, 20, 20, 3, 21, 50):
                capacity.note(entry, Space(100, free))
            told = []
            while (event := events.poll()) is not None:
                told.append(event.data["level"])
        assert told == ["warning", "critical", "warning", "ok"]
        capacity.note(entry, Space(100, 3))
        (finding,) = world.storage.findings()
        assert (finding.code, finding.subject) == ("datastore-full", "datastore/d")

    run(tmp_path, scenario)


def test_thresholds_are_changed_with_their_revision(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        edits = world.storage.datastore_changes
        changed = await edits.update(
            "d", warning_percent=50, critical_percent=60, revision=1, actor="me"
        )
        assert (changed.revision, changed.spec.warning_percent) == (2, 50)
        again = World(tmp_path, world.medium)
        assert again.store.config.datastores[0].spec.critical_percent == 60
        for numbers, revision, code in (
            ((50, 60), 1, ErrorCode.REVISION_MISMATCH),
            ((70, 60), 2, ErrorCode.INVALID),
            ((0, 60), 2, ErrorCode.INVALID),
        ):
            with pytest.raises(MicaError) as caught:
                await edits.update(
                    "d",
                    warning_percent=numbers[0],
                    critical_percent=numbers[1],
                    revision=revision,
                    actor="me",
                )
            assert caught.value.problem.code is code

    run(tmp_path, scenario)
