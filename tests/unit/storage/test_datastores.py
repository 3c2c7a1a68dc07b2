"""Datastores: made, adopted, missing, back again, forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.storage.world import World, run
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DatastoreState,
    ErrorCode,
    MicaError,
    OperationState,
    VolumeSpec,
)
from vmkernel.storage.drivers.base import CreateOptions

MIB = 1 << 20


async def _volume(world: World, volume_id: str, datastore: str = "d") -> None:
    spec = VolumeSpec(datastore=datastore, size_bytes=MIB)
    await world.succeeded(await world.storage.volumes.create(volume_id, spec, actor="me"))


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"kind": DatastoreKind.LOCAL, "disk": "x"}, ErrorCode.UNSUPPORTED, "/spec/kind"),
        ({}, ErrorCode.INVALID, "/spec/path"),
        ({"path": "relative"}, ErrorCode.INVALID, "/spec/path"),
        ({"path": "/nul\0"}, ErrorCode.INVALID, "/spec/path"),
        ({"path": "{root}/a,b"}, ErrorCode.INVALID, "/spec/path"),
        ({"path": "/no/such/parent"}, ErrorCode.INVALID, "/spec/path"),
        ({"path": "{root}/file"}, ErrorCode.INVALID, "/spec/path"),
        ({"path": "{root}/full"}, ErrorCode.CONFLICT, "/spec/path"),
        ({"path": "{root}/broken"}, ErrorCode.CONFLICT, "/spec/path"),
        ({"path": "{root}/new", "disk": "x"}, ErrorCode.INVALID, "/spec/disk"),
    ],
)
def test_what_cannot_be_a_datastore(
    tmp_path: Path, fields: dict[str, str], code: ErrorCode, pointer: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, inside in (("full", "letter.txt"), ("broken", "mica-datastore.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).write_text("{")
    filled = {key: value.replace("{root}", str(tmp_path)) for key, value in fields.items()}
    spec = DatastoreSpec(**{"kind": DatastoreKind.DIRECTORY, **filled})  # type: ignore[arg-type]

    async def scenario(world: World) -> None:
        with pytest.raises(MicaError) as caught:
            await world.storage.datastore_changes.create("x", spec, CreateOptions(), actor="me")
        assert caught.value.problem.code is code
        assert caught.value.problem.fields[0].pointer == pointer

    run(tmp_path, scenario)


def test_a_directory_is_never_wiped(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        options = CreateOptions(wipe_serials=("SERIAL",))
        with pytest.raises(MicaError) as caught:
            await world.storage.datastore_changes.create("x", world.spec("x"), options, actor="me")
        assert caught.value.problem.fields[0].pointer == "/wipe_serials/0"

    run(tmp_path, scenario)


def test_a_datastore_is_forgotten_and_adopted_with_all_that_is_in_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        seen: list[tuple[str, bool]] = []
        world.storage.for_vms.on_datastore_change(lambda name, there: seen.append((name, there)))
        await _volume(world, "v")
        first = await world.storage.datastore_views.get("d")
        await world.succeeded(await world.storage.datastore_changes.delete("d", actor="me"))
        assert await world.storage.datastore_views.list() == ()
        assert (await world.storage.volumes.list(None, None, 9))[0] == ()
        await world.succeeded(
            await world.storage.datastore_changes.create(
                "other", world.spec("d"), CreateOptions(), actor="me"
            )
        )
        second = await world.storage.datastore_views.get("other")
        assert second.status.uuid == first.status.uuid
        volume = await world.storage.volumes.get("v")
        assert volume.spec.datastore == "other"
        assert seen == [("d", False), ("d", False), ("other", True)]

    run(tmp_path, scenario)


def test_the_same_place_is_not_two_datastores(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        ended = await world.ended(
            await world.storage.datastore_changes.create(
                "twin", world.spec("d"), CreateOptions(), actor="me"
            )
        )
        assert ended.state is OperationState.FAILED
        assert ended.error is not None
        assert ended.error.code is ErrorCode.ALREADY_EXISTS
        with pytest.raises(MicaError) as caught:
            await world.storage.datastore_changes.create(
                "d", world.spec("e"), CreateOptions(), actor="me"
            )
        assert caught.value.problem.code is ErrorCode.ALREADY_EXISTS

    run(tmp_path, scenario)


def test_a_datastore_that_is_not_kept_is_not_there(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.medium.failing = True
        ended = await world.ended(
            await world.storage.datastore_changes.create(
                "e", world.spec("e"), CreateOptions(), actor="me"
            )
        )
        assert ended.error is not None
        assert ended.error.code is ErrorCode.UNAVAILABLE
        ended = await world.ended(await world.storage.datastore_changes.delete("d", actor="me"))
        assert ended.error is not None
        assert world.storage.for_vms.datastores() == ("d",)
        world.medium.failing = False
        await world.datastore("e")
        assert world.storage.for_vms.datastores() == ("d", "e")

    run(tmp_path, scenario)


def test_a_missing_datastore_is_told_and_comes_back(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _volume(world, "v")
        (tmp_path / "d").rename(tmp_path / "away")
        again = World(tmp_path, world.medium)
        await again.storage.start()
        status = (await again.storage.datastore_views.get("d")).status
        assert status.state is DatastoreState.MISSING
        assert status.reason is not None
        assert [finding.code for finding in again.storage.findings()] == ["datastore-missing"]
        with pytest.raises(MicaError) as caught:
            await _volume(again, "w")
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        (tmp_path / "away").rename(tmp_path / "d")
        await again.storage.monitor.refresh(again.storage.datastores.entries["d"])
        assert again.storage.for_vms.volume("v").id == "v"
        assert list(again.storage.findings()) == []
        shutil.rmtree(tmp_path / "d")
        await again.storage.monitor.refresh(again.storage.datastores.entries["d"])
        assert again.storage.for_vms.datastores() == ()
        await again.storage.stop()

    run(tmp_path, scenario)


def test_another_datastore_in_the_same_place_is_not_taken_for_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        (tmp_path / "d").rename(tmp_path / "away")
        await world.datastore("e")
        (tmp_path / "e").rename(tmp_path / "d")
        again = World(tmp_path, world.medium)
        await again.storage.start()
        assert again.storage.for_vms.datastores() == ()
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_datastore_in_use_stays(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.users.active["d"] = ("vm-1",)
        with pytest.raises(MicaError) as caught:
            await world.storage.datastore_changes.delete("d", actor="me")
        assert caught.value.problem.code is ErrorCode.IN_USE
        world.users.active, world.users.off = {}, world.users.active
        await world.succeeded(await world.storage.datastore_changes.delete("d", actor="me"))

    run(tmp_path, scenario)


def test_an_id_that_a_disk_brings_and_is_taken_is_left_out(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _volume(world, "v")
        await world.succeeded(await world.storage.datastore_changes.delete("d", actor="me"))
        await world.datastore("e")
        await _volume(world, "v", "e")
        await world.succeeded(
            await world.storage.datastore_changes.create(
                "d", world.spec("d"), CreateOptions(), actor="me"
            )
        )
        assert world.storage.for_vms.volume("v").datastore == "e"
        assert [finding.code for finding in world.storage.findings()] == ["volume-id-taken"]
        await world.succeeded(await world.storage.datastore_changes.delete("d", actor="me"))
        assert list(world.storage.findings()) == []

    run(tmp_path, scenario)


def test_space_is_promised_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        status = (await world.storage.datastore_views.get("d")).status
        most = status.free_bytes // 2
        first = world.storage.capacity.reserve("d", most, pointer="/x")
        with pytest.raises(MicaError) as caught:
            world.storage.capacity.reserve("d", most, pointer="/x")
        assert caught.value.problem.code is ErrorCode.INSUFFICIENT_SPACE
        first()
        first()
        world.storage.capacity.reserve("d", most, pointer="/x")()

    run(tmp_path, scenario)
