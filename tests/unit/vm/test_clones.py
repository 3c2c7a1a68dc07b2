"""Clones: what is copied, what is new, what is left out, and what a failure leaves."""

from __future__ import annotations

from pathlib import Path

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
    VmAction,
)

from .test_driver import running
from .world import World


async def _clone(world: World, new: str = "copy", **fields: str) -> Operation:
    operation = await world.vms.clones().clone("web", new, CloneSpec(**fields), actor="test")
    return await world.operations.wait(operation.id, 10)


async def _with_disk(world: World) -> None:
    await world.act(VmAction.POWER_OFF)
    world.storage.add_volume("data").path.write_bytes(b"content")
    vm = world.vms.get("web")
    spec = replace(
        vm.spec,
        disks=(DiskSpec(volume="data"),),
        nics=(NicSpec(),),
        cloud_init=CloudInitSpec(user="admin"),
        template=True,
    )
    await world.vms.update("web", spec, vm.revision, actor="test")


@on_loop
async def test_a_template_becomes_a_vm_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        folder = world.storage.vms_folder("main")
        (folder / "web/nvram.fd").write_bytes(b"variables")
        (folder / "web/tpm").mkdir(exist_ok=True)
        (folder / "web/tpm/tpm2-00.permall").write_bytes(b"identity")
        assert (await _clone(world, name="A copy")).state is OperationState.SUCCEEDED
        old, new = world.vms.get("web"), world.vms.get("copy")
        assert new.spec.name == "A copy"
        assert not new.spec.template
        assert new.status.uuid != old.status.uuid
        assert new.status.machine_type == old.status.machine_type
        assert new.spec.nics[0].mac not in (None, old.spec.nics[0].mac)
        assert new.spec.nics[0].key == old.spec.nics[0].key
        assert [d.volume for d in new.spec.disks] == ["copy-disk0"]
        assert world.storage.volumes["copy-disk0"].path.read_bytes() == b"content"
        assert (folder / "copy/nvram.fd").read_bytes() == b"variables"
        assert not (folder / "copy/tpm").exists()
        started = await world.act(VmAction.START, "copy")
        assert started.state is OperationState.SUCCEEDED, started.error
        assert new.status.uuid.encode() in (folder / "copy/seed.iso").read_bytes()
        assert world.events("vm.cloned")


@on_loop
async def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _with_disk(world)
        world.storage.add_volume("more")
        vm = world.vms.get("web")
        spec = replace(vm.spec, disks=(*vm.spec.disks, DiskSpec(volume="more")))
        await world.vms.update("web", spec, vm.revision, actor="test")
        world.storage.copy_fails = "more"
        ended = await _clone(world)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert set(world.storage.volumes) == {"data", "more"}
        with pytest.raises(MicaError):
            world.vms.get("copy")
        world.storage.copy_fails = None
        assert (await _clone(world)).state is OperationState.SUCCEEDED


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
