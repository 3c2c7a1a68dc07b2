"""The list of VMs: what must be unique, what a datastore brings, what is broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.vm.world import World
from vmkernel.model import (
    CdromSpec,
    DiskSpec,
    ErrorCode,
    ImageFormat,
    MicaError,
    NicSpec,
    OperationState,
    VmAction,
    VmSpec,
    VmState,
)
from vmkernel.vm.store.definition import FIRST_UID, load, save


@asynccontextmanager
async def started(root: Path) -> AsyncIterator[World]:
    world = World(root)
    await world.vms.start()
    try:
        yield world
    finally:
        await world.operations.close()
        await world.vms.stop()


def test_create_is_durable_and_complete(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            vm = await world.create(nics=(NicSpec(),))
            assert vm.status.machine_type == "pc-q35-10.0"
            assert vm.spec.nics[0].mac is not None
            stored = load(world.storage.vms_folder("main") / "web")
            assert stored.spec == vm.spec
            assert stored.uuid == vm.status.uuid
            assert stored.uid == FIRST_UID
            assert (await world.create("two")).id == "two"
            assert load(world.storage.vms_folder("main") / "two").uid == FIRST_UID + 1
            with pytest.raises(MicaError) as caught:
                await world.create()
            assert caught.value.problem.code is ErrorCode.ALREADY_EXISTS
            await world.restart()
            assert [v.id for v in world.vms.inventory.list_vms()] == ["two", "web"]
            assert world.vms.inventory.get("web").spec == vm.spec

    asyncio.run(story())


def test_two_creations_at_once(tmp_path: Path) -> None:
    """Of two requests for one id or one volume, one wins, and the other is told so."""

    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("disk")
            results = await asyncio.gather(
                world.create("a", disks=(DiskSpec(volume="disk"),)),
                world.create("a"),
                world.create("b", disks=(DiskSpec(volume="disk"),)),
                return_exceptions=True,
            )
            codes = [r.problem.code for r in results if isinstance(r, MicaError)]
            assert codes == [ErrorCode.ALREADY_EXISTS, ErrorCode.IN_USE]
            assert [v.id for v in world.vms.inventory.list_vms()] == ["a"]

    asyncio.run(story())


def test_who_uses_what(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("disk", datastore="second")
            world.storage.add_image("iso", ImageFormat.ISO)
            await world.create(
                disks=(DiskSpec(volume="disk"),), cdroms=(CdromSpec(image="iso"), CdromSpec())
            )
            vms = world.vms
            assert vms.usage.vm_of_volume("disk") == "web"
            assert vms.usage.vm_of_volume("other") is None
            assert vms.usage.vms_of_image("iso") == ("web",)
            assert vms.usage.vms_on_datastore("second") == ("web",)
            assert vms.usage.vms_on_datastore("second", active=True) == ()
            assert not vms.usage.volume_is_open("disk")
            await world.act(VmAction.START)
            assert vms.usage.volume_is_open("disk")
            assert vms.usage.vms_on_datastore("second", active=True) == ("web",)
            with pytest.raises(MicaError):
                await vms.changes.delete("web", actor="test")

    asyncio.run(story())


def test_what_a_vmkernel_before_this_one_started_uses_its_datastores(tmp_path: Path) -> None:
    """Before the VMs of a datastore are read, and where it can't be read at all."""

    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("disk", datastore="second")
            world.storage.add_image("iso", ImageFormat.ISO)
            await world.create("off", disks=(DiskSpec(volume="disk"),))
            await world.vms.changes.delete("off", actor="test")
            await world.create(
                disks=(DiskSpec(volume="disk"),), cdroms=(CdromSpec(image="iso"), CdromSpec())
            )
            await world.act(VmAction.START)
            await world.operations.close()
            await world.vms.stop()
            world.new_vmkernel()
            vms = world.vms
            for datastore in ("main", "second"):
                assert vms.usage.vms_on_datastore(datastore, active=True) == ("web",)
            world.storage.known.add("third")
            assert vms.usage.vms_on_datastore("third", active=True) == ()
            world.storage.available.discard("second")  # its disk may be on any that is away
            for datastore in ("main", "second", "third"):
                assert vms.usage.vms_on_datastore(datastore, active=True) == ("web",)
            world.host.folder("web").record.unlink()
            assert vms.usage.vms_on_datastore("main", active=True) == ("web",)
            world.qemu().die()
            assert vms.usage.vms_on_datastore("main", active=True) == ()
            await vms.start()

    asyncio.run(story())


def test_a_disk_that_cannot_be_read_still_uses_its_datastore(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("disk", datastore="second")
            await world.create(disks=(DiskSpec(volume="disk"),))
            await world.act(VmAction.START)
            world.storage.faults["disk"] = "its header is broken"
            assert world.vms.usage.vms_on_datastore("second", active=True) == ("web",)

    asyncio.run(story())


def test_delete(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("disk")
            await world.create(disks=(DiskSpec(volume="disk"),))
            with pytest.raises(MicaError) as caught:
                await world.vms.changes.delete("web", revision=7, actor="test")
            assert caught.value.problem.code is ErrorCode.REVISION_MISMATCH
            await world.vms.changes.delete("web", revision=1, actor="test")
            assert world.storage.deleted == []
            assert list(world.storage.vms_folder("main").iterdir()) == []
            await world.create(disks=(DiskSpec(volume="disk"),))
            await world.vms.changes.delete("web", with_volumes=True, actor="test")
            assert world.storage.deleted == ["disk"]
            with pytest.raises(MicaError) as caught:
                world.vms.inventory.get("web")
            assert caught.value.problem.code is ErrorCode.NOT_FOUND

    asyncio.run(story())


def test_a_broken_definition_makes_that_vm_alone_unusable(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            await world.create()
            await world.create("other")
            folder = world.storage.vms_folder("main")
            (folder / "web" / "vm.json").write_text("{")
            (folder / "Not A Slug").mkdir()
            (folder / "leftover").mkdir()
            await world.restart()
            web, other = world.vms.inventory.get("web"), world.vms.inventory.get("other")
            assert web.status.state is VmState.UNUSABLE
            assert "not JSON of the right form" in (web.status.reason or "")
            assert other.status.state is VmState.STOPPED
            assert len(world.vms.inventory.list_vms()) == 2
            assert [f.subject for f in world.vms.findings()] == ["web"]
            with pytest.raises(MicaError) as caught:
                await world.act(VmAction.START)
            assert caught.value.problem.code is ErrorCode.CONFLICT
            with pytest.raises(MicaError):
                await world.create("web")
            await world.vms.changes.delete("web", actor="test")
            assert not (folder / "web").exists()

    asyncio.run(story())


def test_a_datastore_goes_and_comes(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            before = await world.create()
            await world.create("away", datastore="second")
            world.storage.change("main", available=False)
            vm = world.vms.inventory.get("web")
            assert vm.status.state is VmState.UNUSABLE
            assert "main" in (vm.status.reason or "")
            assert vm.spec == before.spec
            assert world.vms.inventory.get("away").status.state is VmState.STOPPED
            world.storage.change("main", available=True)
            await world.quiet()
            assert world.vms.inventory.get("web").status.state is VmState.STOPPED
            world.storage.change("main", available=False)
            world.storage.known.discard("main")
            assert [v.id for v in world.vms.inventory.list_vms()] == ["away"]

    asyncio.run(story())


def test_a_renamed_datastore_brings_its_vms_along(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            await world.create("web", datastore="second")
            old = world.storage.vms_folder("second").parent
            world.storage.change("second", available=False)
            world.storage.known.discard("second")
            old.rename(old.with_name("third"))
            world.storage.known.add("third")
            world.storage.change("third", available=True)
            await world.quiet()
            vm = world.vms.inventory.get("web")
            assert (vm.spec.datastore, vm.status.state) == ("third", VmState.STOPPED)
            assert list(world.vms.findings()) == []

    asyncio.run(story())


def test_a_running_vm_outlives_its_datastores_absence(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            await world.create()
            await world.act(VmAction.START)
            world.storage.change("main", available=False)
            assert world.vms.inventory.get("web").status.state is VmState.RUNNING

    asyncio.run(story())


def test_a_datastore_from_elsewhere(tmp_path: Path) -> None:
    """Another name for the datastore, a user number that is taken, and an id that clashes."""

    async def story() -> None:
        async with started(tmp_path) as world:
            await world.create()
            await world.create("guest")
            main, second = (world.storage.vms_folder(name) for name in ("main", "second"))
            (main / "guest").rename(second / "guest")
            document = json.loads((second / "guest" / "vm.json").read_text())
            document["uid"] = FIRST_UID
            (second / "guest" / "vm.json").write_text(json.dumps(document))
            (second / "web").mkdir()
            (second / "web" / "vm.json").write_bytes((main / "web" / "vm.json").read_bytes())
            await world.restart()
            guest = world.vms.inventory.get("guest")
            assert guest.spec.datastore == "second"
            assert world.vms.inventory.get("web").spec.datastore == "main"
            assert [f.code for f in world.vms.findings()] == ["vm-id-clash"]
            for name in ("web", "guest"):
                operation = await world.act(VmAction.START, name)
                assert operation.state is OperationState.SUCCEEDED
            uids = {world.qemu(name).request.uid for name in ("web", "guest")}
            assert len(uids) == 2
            assert {load(main / "web").uid, load(second / "guest").uid} == uids

    asyncio.run(story())


def test_a_volume_that_two_vms_name_is_open_while_either_runs(tmp_path: Path) -> None:
    """A datastore that comes may bring a VM that names a volume of another: that one is no reason
    to take the volume for free."""

    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("data")
            await world.create("web", disks=(DiskSpec(volume="data"),))
            await world.act(VmAction.START)
            folder = world.storage.vms_folder("second") / "also"
            folder.mkdir()
            definition = load(world.storage.vms_folder("main") / "web")
            save(folder, replace(definition, id="also"))
            await world.restart()
            claims, web = (
                world.vms.inventory.reservations,
                world.vms.inventory.driver("web").definition,
            )
            claims.drop("web")  # the other one came first
            claims.note("web", web.spec, web.uid)
            assert world.vms.usage.vm_of_volume("data") == "also"
            assert world.vms.usage.volume_is_open("data")
            assert world.vms.usage.active_vm_of_volume("data") == "web"
            ended = await world.act(VmAction.START, "also")
            assert ended.error is not None
            assert ended.error.code is ErrorCode.IN_USE

    asyncio.run(story())


def test_a_volume_that_went_away_fails_the_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            world.storage.add_volume("disk")
            await world.create(disks=(DiskSpec(volume="disk"),))
            del world.storage.volumes["disk"]
            operation = await world.act(VmAction.START)
            assert operation.error is not None
            assert [f.pointer for f in operation.error.errors] == ["/spec/disks/0/volume"]
            status = world.vms.inventory.get("web").status
            assert status.state is VmState.UNUSABLE
            assert status.reason is not None
            assert "there is no volume disk" in status.reason
            assert [f.code for f in world.vms.findings()] == ["vm-unusable"]
            # It can still be mended.
            vm = world.vms.inventory.get("web")
            await world.vms.changes.update(
                "web", replace(vm.spec, disks=()), vm.revision, actor="test"
            )
            assert world.vms.inventory.get("web").status.state is VmState.STOPPED

    asyncio.run(story())


def test_an_update_keeps_addresses_and_checks_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with started(tmp_path) as world:
            vm = await world.create(nics=(NicSpec(),))
            await world.create("other", nics=(NicSpec(mac="52:54:00:00:00:0f"),))
            wanted = VmSpec(datastore="main", nics=(NicSpec(), NicSpec()), memory_bytes=1 << 30)
            updated = await world.vms.changes.update("web", wanted, 1, actor="test")
            assert updated.revision == 2
            assert updated.spec.nics[0].mac == vm.spec.nics[0].mac
            again = await world.vms.changes.update("web", updated.spec, 2, actor="test")
            assert again.revision == 2
            for changes, pointer in (
                ({"datastore": "second"}, "/spec/datastore"),
                ({"nics": (NicSpec(mac="52:54:00:00:00:0f"),)}, "/spec/nics/0/mac"),
                ({"disks": (DiskSpec(volume="none"),)}, "/spec/disks/0/volume"),
            ):
                with pytest.raises(MicaError) as caught:
                    await world.vms.changes.update(
                        "web", replace(updated.spec, **changes), 2, actor="test"
                    )
                assert [f.pointer for f in caught.value.problem.fields] == [pointer]

    asyncio.run(story())
