"""A volume whose move was interrupted while the other datastore is missing: the valid data may be
there, so nothing reads, changes or links what is here, whichever way it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.test_volume_changes import _make, _move
from tests.unit.storage.world import World, run
from vmkernel.model import (
    CheckRepair,
    ErrorCode,
    ImageCapture,
    ImageFormat,
    MicaError,
    Subject,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.storage.images.service import Images
from vmkernel.storage.ports import DiskPast
from vmkernel.storage.vm_storage import VmStorage
from vmkernel.storage.volumes.checks import VolumeChecks
from vmkernel.storage.volumes.clone import VolumeClones
from vmkernel.storage.volumes.file_check import VolumeFileCheck
from vmkernel.storage.volumes.moves import VolumeMoves
from vmkernel.storage.volumes.resize import VolumeResizing
from vmkernel.storage.volumes.restore_stream import VolumeData
from vmkernel.storage.volumes.service import Volumes

MIB = 1 << 20
Ask = Callable[[World], Awaitable[object] | contextlib.AbstractContextManager[object] | object]

ANSWERS: dict[str, Ask] = {
    "Volumes.usable": lambda world: world.storage.volumes.usable("v"),
    "VolumeChecks.sound": lambda world: world.storage.volumes.checks.sound("v"),
    "VolumeChecks.at_rest": lambda world: world.storage.volumes.checks.at_rest("v"),
    "VolumeChecks.checkable": lambda world: world.storage.volumes.checks.checkable("v"),
    "Volumes.exporting": lambda world: world.storage.volumes.exporting("v"),
    "Volumes.make_scratch": lambda world: world.storage.volumes.make_scratch("v", MIB),
    "Volumes.create": lambda world: world.storage.volumes.create(
        "new", VolumeSpec(datastore="d", size_bytes=64 * MIB, source_volume="v"), actor="me"
    ),
    "VolumeResizing.resize": lambda world: world.storage.volume_resizing.resize(
        "v", 128 * MIB, revision=None, allow_shrink=False, actor="me"
    ),
    "VolumeMoves.flatten": lambda world: world.storage.volume_moves.flatten("v", actor="me"),
    "VolumeMoves.move": lambda world: _move(world, volume_format=VolumeFormat.RAW),
    "VolumeFileCheck.check": lambda world: world.storage.volume_file_check.check(
        "v", CheckRepair.NONE, actor="me"
    ),
    "VolumeClones.copy": lambda world: world.storage.clones.copy("v", "new"),
    "VolumeClones.copy, of a snapshot": lambda world: world.storage.clones.copy(
        "v", "new", past=DiskPast(tag="mica-1")
    ),
    "VolumeClones.link": lambda world: world.storage.clones.link("v", "new"),
    "VmStorage.volume": lambda world: world.storage.for_vms.volume("v"),
    "VmStorage.volume, while it is busy": lambda world: world.storage.for_vms.volume(
        "v", while_busy=True
    ),
    "VmStorage.copy_volume": lambda world: world.storage.for_vms.copy_volume(
        "v", "new", datastore="d", on_progress=lambda _done, _total: None, clone="token"
    ),
    "VmStorage.link_volume": lambda world: world.storage.for_vms.link_volume(
        "v", "new", clone="token"
    ),
    "Images.capture": lambda world: world.storage.images.capture(
        "new", ImageCapture(volume="v", format=ImageFormat.QCOW2), actor="me"
    ),
    "Images.volume_data": lambda world: world.storage.images.volume_data("v"),
    "Images.map_volume": lambda world: world.storage.images.map_volume("v", 0),
    "Images.read_volume": lambda world: world.storage.images.read_volume("v", 0, 1, actor="me"),
    "VolumeData.write": lambda world: world.storage.volume_data().write("v", 0, 512, actor="me"),
}
"""Everything that reads, changes or links the data of a volume."""

DESCRIBES_ONLY = {
    "Volumes.get",
    "Volumes.survey",  # of a volume to come, whose source was asked for by `source_volume`
    "Volumes.prepare",
    "Volumes.make",
    "Volumes.fill_copy",
    "Volumes.begin",
    "Volumes.keep",  # so that it isn't deleted before the move is decided
    "Volumes.delete",
    "VolumeChecks.described",
    "Volumes.source_volume",  # see `Volumes.create`
    "VolumeChecks.refuse_open",
    "VmStorage.children",
    "VmStorage.refuse_children",
    "VmStorage.clone_of",
    "VmStorage.datastore_of_volume",
    "VmStorage.fault",
    "VmStorage.delete_volume",
}
"""What takes a volume's id and doesn't touch its data."""


async def _undecided(world: World) -> None:
    """Volume `v`, whose description says that it was being moved elsewhere."""
    await _make(world, "v")
    entry = world.storage.volumes.checks.sound("v")[0]
    assert entry.record is not None
    record = msgspec.structs.replace(entry.record, moving_to="00000000-another-store")
    entry.place.describe(record)
    world.storage._catalogue.described("v", record)


@pytest.mark.parametrize("ask", ANSWERS.values(), ids=ANSWERS)
def test_nothing_touches_it(ask: Ask, tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _undecided(world)
        before = world.files()
        with pytest.raises(MicaError, match="Volume v was being moved") as raised:
            await _answer(ask(world))
        assert raised.value.problem.code is ErrorCode.CONFLICT
        assert world.files() == before
        assert world.operations.running(Subject(kind="volume", id="v")) == []
        await world.storage.volumes.delete("v", actor="me")  # and nothing holds it

    run(tmp_path, scenario)


async def _answer(asked: object) -> None:
    if isinstance(asked, contextlib.AbstractContextManager):
        with asked:
            pass
    elif inspect.isawaitable(asked):
        await asked


def test_every_way_to_a_volume_is_tried() -> None:
    """A new method that takes a volume has to be sorted into one of the two lists."""
    named = {"volume", "volume_id", "source", "source_id", "base_id", "spec", "capture"}
    found = {
        f"{service.__name__}.{name}"
        for service in (
            Volumes,
            VolumeChecks,
            VolumeFileCheck,
            VolumeMoves,
            VolumeResizing,
            VolumeClones,
            VmStorage,
            Images,
            VolumeData,
        )
        for name, method in inspect.getmembers(service, inspect.isfunction)
        if not name.startswith("_")
        and any(
            parameter.name in named
            and str(parameter.annotation) in ("str", "VolumeSpec", "ImageCapture")
            for parameter in inspect.signature(method).parameters.values()
        )
    }
    assert found == {name.partition(",")[0] for name in ANSWERS} | DESCRIBES_ONLY


def test_several_may_read_one_volume_and_nothing_else_is_done_to_it_meanwhile(
    tmp_path: Path,
) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v")
        volumes = world.storage.volumes
        with volumes.exporting("v") as first:
            with volumes.exporting("v") as second:
                assert first == second
            for refused in (lambda: volumes.usable("v"), lambda: world.storage.for_vms.volume("v")):
                with pytest.raises(MicaError, match="is being exported"):
                    refused()
            with pytest.raises(MicaError, match="is being exported"):
                await volumes.delete("v", actor="me")
            with pytest.raises(MicaError, match="is being exported"):
                await _move(world, volume_format=VolumeFormat.RAW)
        world.qemu_img.gate = asyncio.Event()
        moving = await _move(world, volume_format=VolumeFormat.RAW)
        with pytest.raises(MicaError, match="is being moved"), volumes.exporting("v"):
            pass
        world.qemu_img.gate.set()
        await world.succeeded(moving)
        with volumes.exporting("v") as found:
            assert found.entry.format is VolumeFormat.RAW
        world.users.open.add("v")
        with pytest.raises(MicaError) as raised, volumes.exporting("v"):
            pass
        assert raised.value.problem.code is ErrorCode.IN_USE

    run(tmp_path, scenario)
