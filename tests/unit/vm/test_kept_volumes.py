"""Volumes that stay because a VM names them: told to storage before the VM's maker is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.vm.folder_storage import FolderStorage
from tests.unit.vm.world import World
from vmkernel.model import DiskSpec, ErrorCode, MicaError, VmAction
from vmkernel.qemu import QmpCommandError
from vmkernel.vm.store import definition as definitions


async def _update(world: World, *volumes: str) -> None:
    vm = world.vms.inventory.get("web")
    disks = tuple(DiskSpec(volume=volume) for volume in volumes)
    await world.vms.changes.update("web", replace(vm.spec, disks=disks), vm.revision, actor="me")


@pytest.mark.parametrize("runs", [False, True])
def test_what_a_vm_names_is_kept_once_that_is_stored(
    tmp_path: Path, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: the vmkernel may be killed in between, and nobody would have the volume."""
    stored: list[tuple[str, ...]] = []

    async def keep(storage: FolderStorage, volumes: Iterable[str]) -> None:
        definition = definitions.load(tmp_path / "ds/main/vms/web")
        stored.append(tuple(disk.volume for disk in definition.spec.disks))
        storage.kept += tuple(volumes)

    monkeypatch.setattr(FolderStorage, "keep_volumes", keep)

    async def story() -> None:
        world = World(tmp_path)
        for volume in ("a", "b"):
            world.storage.add_volume(volume)
        await world.vms.start()
        try:
            assert world.vms.usage.names_volume("a") is False
            await world.create(disks=(DiskSpec(volume="a"),))
            assert (world.storage.kept, stored) == (("a",), [("a",)])
            assert world.vms.usage.names_volume("a")
            if runs:
                await world.act(VmAction.START)
            await _update(world, "a", "b")
            assert world.storage.kept == ("a", "a", "b")
            assert stored[-1] == ("a", "b")
            await _update(world, "a")
            assert world.vms.usage.names_volume("b") is False
        finally:
            await world.vms.stop()

    asyncio.run(story())


def test_a_vm_that_fails_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        world = World(tmp_path)
        world.storage.add_volume("a")
        await world.vms.start()
        try:

            def fail(*_: object) -> None:
                assert world.vms.usage.names_volume("a") is None, "it is about to be named"
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(definitions, "save", fail)
                with pytest.raises(MicaError):
                    await world.create(disks=(DiskSpec(volume="a"),))
            assert world.storage.kept == ()
            assert world.vms.usage.names_volume("a") is False
            await world.create()
            await world.act(VmAction.START)
            world.qemu().replies["device_add"] = QmpCommandError("no")
            with pytest.raises(MicaError):
                await _update(world, "a")
            assert "a" not in world.storage.kept
            assert world.vms.usage.names_volume("a") is False
        finally:
            await world.vms.stop()

    asyncio.run(story())


def test_a_volume_that_goes_before_it_is_claimed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when the request was looked at, and is deleted before the VM is written down."""

    async def story() -> None:
        world = World(tmp_path)
        world.storage.add_volume("a")
        await world.vms.start()
        try:

            async def slow(_: object) -> None:
                world.storage.volumes.pop("a", None)

            monkeypatch.setattr(type(world.host), "check_cpu_model", lambda _, model: slow(model))
            with pytest.raises(MicaError) as caught:
                await world.create(disks=(DiskSpec(volume="a"),))
            assert caught.value.problem.code in (ErrorCode.INVALID, ErrorCode.NOT_FOUND)
            assert world.vms.inventory.list_vms() == ()
        finally:
            await world.vms.stop()

    asyncio.run(story())


def test_nothing_is_known_while_a_vm_is_not(tmp_path: Path) -> None:
    """A definition that can't be read may name any volume, and so may one that is missing."""

    async def story() -> None:
        world = World(tmp_path)
        world.storage.add_volume("a")
        assert world.vms.usage.names_volume("a") is None, "nothing was read yet"
        await world.vms.start()
        assert world.vms.usage.names_volume("a") is False
        await world.create(disks=(DiskSpec(volume="a"),))
        path = tmp_path / "ds/main/vms/web/vm.json"
        good = path.read_bytes()
        path.write_bytes(good[:40])
        await world.restart()
        assert world.vms.usage.names_volume("a") is None
        path.write_bytes(good)
        world.storage.available.discard("main")
        await world.restart()
        assert world.vms.usage.names_volume("a") is None
        world.storage.available.add("main")
        await world.restart()
        assert world.vms.usage.names_volume("a") is True
        await world.vms.stop()

    asyncio.run(story())
