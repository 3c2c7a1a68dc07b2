"""Datastores renamed, unmounted, mounted; what hangs; what is full of somebody else's things."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from tests.unit.storage.world import World, run
from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.errors import HostError
from vmkernel.host.folder import Folder, open_folder
from vmkernel.model import (
    DatastoreKind,
    DatastoreState,
    ErrorCode,
    MicaError,
    OperationState,
    VolumeSpec,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers.base import Attached, CreateOptions, DatastoreDriver

MIB = 1 << 20


async def _volume(world: World, volume_id: str, datastore: str = "d") -> None:
    spec = VolumeSpec(datastore=datastore, size_bytes=MIB)
    await world.succeeded(await world.storage.volumes.create(volume_id, spec, actor="me"))


def test_a_renamed_datastore_keeps_what_is_in_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        edits = world.storage.datastore_changes
        await _volume(world, "v")
        seen: list[tuple[str, bool]] = []
        world.storage.for_vms.on_datastore_change(lambda name, there: seen.append((name, there)))
        await world.succeeded(await edits.rename("d", "fast", actor="me"))
        assert seen == [("d", False), ("fast", True)]
        assert world.storage.for_vms.datastores() == ("fast",)
        assert (await world.storage.volumes.get("v")).spec.datastore == "fast"
        assert [item.id for item in World(tmp_path, world.medium).store.config.datastores] == [
            "fast"
        ]
        with pytest.raises(MicaError) as caught:
            await edits.rename("fast", "fast", actor="me")
        assert caught.value.problem.code is ErrorCode.ALREADY_EXISTS
        world.users.active["fast"] = ("vm-1",)
        with pytest.raises(MicaError) as caught:
            await edits.rename("fast", "d", actor="me")
        assert caught.value.problem.code is ErrorCode.IN_USE

    run(tmp_path, scenario)


def test_a_rename_that_is_not_kept_did_not_happen(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _volume(world, "v")
        world.medium.failing = True
        ended = await world.ended(
            await world.storage.datastore_changes.rename("d", "fast", actor="me")
        )
        assert ended.state is OperationState.FAILED
        assert world.storage.for_vms.datastores() == ("d",)
        assert (await world.storage.volumes.get("v")).spec.datastore == "d"
        world.medium.failing = False
        await world.succeeded(await world.storage.datastore_changes.rename("d", "fast", actor="me"))

    run(tmp_path, scenario)


def test_what_was_unmounted_stays_unmounted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        edits = world.storage.datastore_changes
        await _volume(world, "v")
        await world.succeeded(await edits.unmount("d", actor="me"))
        assert world.storage.for_vms.datastores() == ()
        again = World(tmp_path, world.medium)
        await again.storage.start()
        status = (await again.storage.datastore_views.get("d")).status
        assert status.state is DatastoreState.UNMOUNTED
        assert list(again.storage.findings()) == []
        await again.succeeded(await again.storage.datastore_changes.mount("d", actor="me"))
        assert again.storage.for_vms.volume("v").id == "v"
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_mount_that_fails_says_why_and_is_tried_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        edits = world.storage.datastore_changes
        await world.succeeded(await edits.unmount("d", actor="me"))
        (tmp_path / "d").rename(tmp_path / "away")
        ended = await world.ended(await edits.mount("d", actor="me"))
        assert ended.error is not None
        assert "no datastore" in ended.error.detail
        (tmp_path / "away").rename(tmp_path / "d")
        await world.storage.monitor.refresh(world.storage.datastores.entries["d"])
        assert world.storage.for_vms.datastores() == ("d",)

    run(tmp_path, scenario)


def test_adopting_makes_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(MicaError) as caught:
            await world.storage.datastore_changes.create(
                "e", world.spec("e"), CreateOptions(adopt=True), actor="me"
            )
        assert caught.value.problem.fields[0].pointer == "/adopt"
        assert not (tmp_path / "e").exists()
        await world.succeeded(await world.storage.datastore_changes.delete("d", actor="me"))
        await world.succeeded(
            await world.storage.datastore_changes.create(
                "e", world.spec("d"), CreateOptions(adopt=True), actor="me"
            )
        )

    run(tmp_path, scenario)


def test_directories_neither_grow_nor_take_disks(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        edits = world.storage.datastore_changes
        for operation in (
            await edits.grow("d", actor="me"),
            await edits.add_disk("d", "X", CreateOptions(), actor="me"),
            await edits.replace_disk("d", "X", "Y", CreateOptions(), actor="me"),
        ):
            ended = await world.ended(operation)
            assert ended.error is not None
            assert ended.error.code is ErrorCode.UNSUPPORTED
        with pytest.raises(MicaError) as caught:
            await world.storage.disks.wipe("X", "X", actor="me")
        assert caught.value.problem.code is ErrorCode.UNSUPPORTED

    run(tmp_path, scenario)


class _Hanging(DatastoreDriver):
    """Never comes back from anything."""

    kind = DatastoreKind.DIRECTORY

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Hang."""
        await asyncio.Event().wait()
        raise AssertionError(stored)


def test_a_datastore_that_hangs_holds_up_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        await world.datastore("e")
        again = World(tmp_path, world.medium)
        stores = again.storage.datastores
        good = stores.driver(DatastoreKind.DIRECTORY)
        hanging = _Hanging()

        async def attach(stored: StoredDatastore) -> Attached:
            return await (hanging if stored.id == "e" else good).attach(stored)

        chosen = type("Chosen", (DatastoreDriver,), {"attach": staticmethod(attach)})()
        stores._drivers[DatastoreKind.DIRECTORY] = chosen
        monkeypatch.setattr("vmkernel.storage.datastores.monitor._START_WAIT_S", 0.2)
        await again.storage.start()
        assert again.storage.for_vms.datastores() == ("d",)
        async with asyncio.timeout(5):
            await again.storage.stop()

    run(tmp_path, scenario)


def test_a_call_that_hangs_is_left_behind_and_not_repeated() -> None:
    async def scenario() -> None:
        bounded, gate = BlockingCalls(), threading.Event()
        started = time.monotonic()
        with pytest.raises(HostError, match="did not answer within"):
            await bounded.run("x", gate.wait, timeout_s=0.1, what="The server")
        with pytest.raises(HostError, match="still does not answer"):
            await bounded.run("x", lambda: 1, timeout_s=5, what="The server")
        assert time.monotonic() - started < 3
        assert await bounded.run("y", lambda: 2, timeout_s=5, what="Another") == 2
        gate.set()
        await asyncio.to_thread(bounded._hanging["x"].join, 5)
        assert await bounded.run("x", lambda: 3, timeout_s=5, what="The server") == 3

        def broken() -> None:
            raise OSError(5, "eio")

        with pytest.raises(OSError, match="eio"):
            await bounded.run("x", broken, timeout_s=5, what="The server")

    asyncio.run(scenario())


def test_a_file_system_that_hangs_stops_no_other_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(path: Path) -> Folder:
        if str(path).startswith(str(tmp_path / "slow")):
            gate.wait(20)
        return open_folder(path)

    monkeypatch.setattr("vmkernel.storage.datastores.capacity.GLANCE_S", 0.2)
    monkeypatch.setattr("vmkernel.storage.volumes.service.GLANCE_S", 0.2)
    monkeypatch.setattr("vmkernel.storage.datastores.registry._PROBE_S", 0.5)

    async def scenario(world: World) -> None:
        await world.datastore("slow")
        await _volume(world, "there", "slow")
        monkeypatch.setattr("vmkernel.host.files.open_folder", slow)
        started = time.monotonic()
        stuck = asyncio.create_task(_volume(world, "stuck", "slow"))
        shown = asyncio.create_task(world.storage.datastore_views.list())
        await _volume(world, "v")
        assert time.monotonic() - started < 0.5
        assert [store.status.state for store in await shown] == [DatastoreState.AVAILABLE] * 2
        with pytest.raises(MicaError) as caught:
            await stuck
        assert caught.value.problem.code is ErrorCode.TIMED_OUT
        assert "Datastore slow did not answer" in str(caught.value)
        assert [item.id for item in (await world.storage.volumes.list(None, None, 9))[0]] == [
            "there",
            "v",
        ]
        assert time.monotonic() - started < 5
        gate.set()
        await _volume(world, "again", "slow")

    run(tmp_path, scenario)
