"""Clones: what is copied, what is new, what is left out, and what a failure leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.framework.running import on_loop
from vmkernel.model import (
    CloneSpec,
    CloudInitSpec,
    DiskSpec,
    ErrorCode,
    MicaError,
    NicSpec,
    Operation,
    OperationState,
    SnapshotSpec,
    Subject,
    VmAction,
    VolumeFormat,
)
from vmkernel.operations import OperationContext
from vmkernel.operations import registry as operations
from vmkernel.vm.clone.service import Clones

from .test_driver import running
from .world import World


async def _clone(world: World, new: str = "copy", **fields: Any) -> Operation:
    operation = await world.vms.clones().clone("web", new, CloneSpec(**fields), actor="test")
    return await world.operations.wait(operation.id, 10)


async def _with_disk(world: World) -> None:
    await world.act(VmAction.POWER_OFF)
    world.storage.add_volume("data").path.write_bytes(b"content")
    vm = world.vms.inventory.get("web")
    spec = replace(
        vm.spec,
        disks=(DiskSpec(volume="data"),),
        nics=(NicSpec(),),
        cloud_init=CloudInitSpec(user="admin"),
        template=True,
    )
    await world.vms.changes.update("web", spec, vm.revision, actor="test")


@on_loop
async def test_a_template_becomes_a_vm_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        folder = world.storage.vms_folder("main")
        (folder / "web/nvram.fd").write_bytes(b"variables")
        (folder / "web/tpm.state").write_bytes(b"identity")
        assert (await _clone(world, name="A copy")).state is OperationState.SUCCEEDED
        old, new = world.vms.inventory.get("web"), world.vms.inventory.get("copy")
        assert new.spec.name == "A copy"
        assert not new.spec.template
        assert new.status.uuid != old.status.uuid
        assert new.status.machine_type == old.status.machine_type
        assert new.spec.nics[0].mac not in (None, old.spec.nics[0].mac)
        assert new.spec.nics[0].key == old.spec.nics[0].key
        assert [d.volume for d in new.spec.disks] == ["copy-disk0"]
        assert world.storage.volumes["copy-disk0"].path.read_bytes() == b"content"
        assert (folder / "copy/nvram.fd").read_bytes() == b"variables"
        assert not (folder / "copy/tpm.state").exists()
        started = await world.act(VmAction.START, "copy")
        assert started.state is OperationState.SUCCEEDED, started.error
        assert new.status.uuid.encode() in (folder / "copy/seed.iso").read_bytes()
        assert world.events("vm.cloned")


@on_loop
async def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        world.storage.add_volume("more")
        vm = world.vms.inventory.get("web")
        spec = replace(vm.spec, disks=(*vm.spec.disks, DiskSpec(volume="more")))
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        world.storage.copy_fails = "more"
        ended = await _clone(world)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert set(world.storage.volumes) == {"data", "more"}
        with pytest.raises(MicaError):
            world.vms.inventory.get("copy")
        world.storage.copy_fails = None
        assert (await _clone(world)).state is OperationState.SUCCEEDED


@on_loop
async def test_a_clone_that_was_cut_off_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves a journal and a volume, and no VM: the next vmkernel takes them away."""

    async def nothing(*_: object) -> None:
        return

    async with running(tmp_path) as world:
        await _with_disk(world)
        world.storage.add_volume("more")
        vm = world.vms.inventory.get("web")
        spec = replace(vm.spec, disks=(*vm.spec.disks, DiskSpec(volume="more")))
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        folder = world.storage.vms_folder("main")
        with monkeypatch.context() as killed:
            killed.setattr(Clones, "_discard", nothing)
            world.storage.copy_fails = "more"
            assert (await _clone(world)).error is not None
        (folder / "copy").mkdir()
        (folder / "copy/nvram.fd").write_bytes(b"variables")
        assert set(world.storage.volumes) == {"data", "more", "copy-disk0"}
        # A datastore that isn't there might hold a part of it: what is known goes, the rest stays
        # written down.
        world.storage.available.discard("second")
        await world.restart()
        assert set(world.storage.volumes) == {"data", "more"}
        assert (folder / ".clone-copy.json").exists()
        # One of the same name that isn't of that clone is nobody's business.
        world.storage.add_volume("copy-disk1")
        world.storage.change("second", available=True)
        await world.quiet()
        assert not (folder / ".clone-copy.json").exists()
        assert not (folder / "copy").exists()
        assert set(world.storage.volumes) == {"data", "more", "copy-disk1"}


@on_loop
async def test_a_clone_under_way_is_not_swept(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        world.storage.copy_waits = asyncio.Event()
        begun = await world.vms.clones().clone("web", "copy", CloneSpec(), actor="test")
        await world.quiet()
        world.storage.change("second", available=True)
        await world.quiet()
        assert (world.storage.vms_folder("main") / ".clone-copy.json").exists()
        world.storage.copy_waits.set()
        ended = await world.operations.wait(begun.id, 10)
        assert ended.state is OperationState.SUCCEEDED
        assert not (world.storage.vms_folder("main") / ".clone-copy.json").exists()
        await world.restart()
        assert "copy-disk0" in world.storage.volumes


@on_loop
async def test_who_cancels_while_it_is_written_down_comes_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        gate, reached = asyncio.Event(), asyncio.Event()
        write_down = Clones._write_down

        async def slowly(*arguments: Any) -> None:
            reached.set()
            await gate.wait()
            await write_down(*arguments)

        monkeypatch.setattr(Clones, "_write_down", slowly)
        begun = await world.vms.clones().clone("web", "copy", CloneSpec(), actor="test")
        await reached.wait()
        cancelling = asyncio.create_task(world.operations.cancel(begun.id, "test"))
        await world.quiet()
        gate.set()
        await cancelling
        await world.operations.wait(begun.id, 10)
        assert world.vms.inventory.get("copy").spec.disks[0].volume in world.storage.volumes
        assert not (world.storage.vms_folder("main") / ".clone-copy.json").exists()


@on_loop
async def test_linked_clones_keep_their_template_as_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        assert (await _clone(world, linked=True)).state is OperationState.SUCCEEDED
        data = world.storage.volumes["data"]
        (event,) = world.events("vm.cloned")
        assert event.data["linked"]
        launched = await world.act(VmAction.START, "copy")
        assert launched.state is OperationState.SUCCEEDED, launched.error
        request = world.launcher.qemus["copy"].request
        assert data.path in request.read_only
        assert data.path not in request.read_write
        assert f'"filename":"{data.path}"' in " ".join(request.arguments)

        web = world.vms.inventory.get("web")
        with pytest.raises(MicaError, match="copy-disk0") as caught:
            await world.vms.changes.update(
                "web", replace(web.spec, template=False), web.revision, actor="test"
            )
        assert caught.value.problem.code is ErrorCode.IN_USE
        with pytest.raises(MicaError, match="copy-disk0"):
            await world.vms.changes.delete("web", with_volumes=True, actor="test")
        assert world.vms.inventory.get("web").id == "web"
        with pytest.raises(MicaError, match="copy-disk0"):
            await world.vms.snapshots().create("web", "one", SnapshotSpec(), actor="test")
        # Its disk in another VM: only read there.
        await world.vms.changes.delete("web", actor="test")
        await world.create("other", disks=(DiskSpec(volume="data"),))
        refused = await world.act(VmAction.START, "other")
        assert refused.error is not None
        assert "copy-disk0" in (refused.error.detail or "")
        await world.act(VmAction.POWER_OFF, "copy")
        await world.vms.changes.delete("copy", with_volumes=True, actor="test")
        assert (await world.act(VmAction.START, "other")).state is OperationState.SUCCEEDED


@on_loop
async def test_a_snapshot_is_cloned_while_its_vm_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.act(VmAction.POWER_OFF)
        world.storage.add_volume("data").path.write_bytes(b"then")
        data = replace(world.storage.volumes["data"], format=VolumeFormat.QCOW2)
        world.storage.volumes["data"] = data
        vm = world.vms.inventory.get("web")
        spec = replace(vm.spec, disks=(DiskSpec(volume="data"),), description="of then")
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        folder = world.storage.vms_folder("main") / "web"
        (folder / "nvram.fd").write_bytes(b"variables of then")
        taken = await world.vms.snapshots().create("web", "one", SnapshotSpec(), actor="test")
        assert (await world.operations.wait(taken.id, 10)).error is None
        data.path.write_bytes(b"now")
        (folder / "nvram.fd").write_bytes(b"variables of now")
        vm = world.vms.inventory.get("web")
        await world.vms.changes.update(
            "web", replace(vm.spec, description="of now"), vm.revision, actor="test"
        )
        await world.act(VmAction.START)
        ended = await _clone(world, snapshot="one")
        assert ended.state is OperationState.SUCCEEDED, ended.error
        copy = world.vms.inventory.get("copy")
        assert copy.spec.description == "of then"
        assert world.storage.volumes["copy-disk0"].path.read_bytes() == b"then"
        assert (folder.parent / "copy/nvram.fd").read_bytes() == b"variables of then"
        with pytest.raises(MicaError, match="no snapshot two"):
            await _clone(world, "third", snapshot="two")
        with pytest.raises(MicaError, match="make a full clone"):
            await _clone(world, "third", snapshot="one", linked=True)
        with pytest.raises(MicaError, match="not a template"):
            await _clone(world, "third", linked=True)


@on_loop
async def test_what_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        with pytest.raises(MicaError, match="shut it down"):
            await _clone(world)
        await _with_disk(world)
        await world.create("other")
        with pytest.raises(MicaError, match="a VM other already"):
            await _clone(world, "other")
        world.storage.add_volume("copy-disk0")
        with pytest.raises(MicaError, match="a volume copy-disk0 already"):
            await _clone(world)
        with pytest.raises(MicaError, match="too long"):
            await _clone(world, "x" * 60)
        with pytest.raises(MicaError, match="no datastore"):
            await _clone(world, "third", datastore="nowhere")


@on_loop
async def test_a_clone_that_is_refused_leaves_its_source_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_RUNNING_EACH", 1)

    async def long_work(_: OperationContext) -> None:
        await asyncio.Event().wait()

    async with running(tmp_path) as world:
        await _with_disk(world)
        subject = Subject(kind="host", id="host")
        other = world.operations.begin("x", subject, long_work, actor="test", cancellable=True)
        with pytest.raises(MicaError, match="operations run"):
            await _clone(world)
        await world.operations.cancel(other.id, "test")
        vm = world.vms.inventory.get("web")
        await world.vms.changes.update(
            "web", replace(vm.spec, template=False), vm.revision, actor="test"
        )
        started = await world.act(VmAction.START)
        assert started.state is OperationState.SUCCEEDED, started.error
