"""Volumes: sizes, sources, revisions, and nothing left of what failed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.storage.samples import bzimage, qcow2
from tests.unit.storage.world import World, run
from vmkernel.host import CommandError
from vmkernel.model import (
    Allocation,
    ErrorCode,
    ImageFormat,
    MicaError,
    OperationState,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20


def _spec(size: int = 64 * MIB, **fields: object) -> VolumeSpec:
    return VolumeSpec(**{"datastore": "d", "size_bytes": size, **fields})  # type: ignore[arg-type]


async def _make(world: World, volume_id: str, spec: VolumeSpec) -> None:
    await world.succeeded(await world.storage.volumes.create(volume_id, spec, actor="me"))


@pytest.mark.parametrize("volume_format", list(VolumeFormat))
def test_a_blank_volume_is_made_and_found_again(
    tmp_path: Path, volume_format: VolumeFormat
) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v", _spec(2 * MIB, format=volume_format))
        volume = await world.storage.volumes.get("v")
        assert volume.spec == _spec(2 * MIB, format=volume_format)
        assert (volume.revision, volume.status.reason) == (1, None)
        file = world.storage.for_vms.volume("v")
        assert (file.format, file.size_bytes) == (volume_format, 2 * MIB)
        if volume_format is VolumeFormat.RAW:
            assert volume.status.allocated_bytes == 0
            await _make(
                world, "w", _spec(2 * MIB, format=volume_format, allocation=Allocation.THICK)
            )
            thick = await world.storage.volumes.get("w")
            assert thick.status.allocated_bytes >= 2 * MIB
            await world.storage.volumes.delete("w", actor="me")
        again = World(tmp_path, world.medium)
        await again.storage.start()
        assert await again.storage.volumes.get("v") == volume
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_volume_is_filled_from_an_image_and_grown(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.upload("base", qcow2(size=64 * MIB))
        await _make(world, "v", _spec(128 * MIB, source_image="base"))
        assert world.qemu_img.calls[-2:] == [
            "convert qcow2 qcow2",
            f"resize qcow2 {128 * MIB} False",
        ]
        await _make(world, "w", _spec(64 * MIB, source_image="base", format=VolumeFormat.RAW))
        assert world.storage.for_vms.volume("w").path.stat().st_size == 64 * MIB
        assert (await world.storage.volumes.get("w")).spec.source_image == "base"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("volume_id", "spec", "code", "pointer"),
    [
        ("taken", _spec(), ErrorCode.ALREADY_EXISTS, None),
        ("v", _spec(datastore="nope"), ErrorCode.INVALID, "/spec/datastore"),
        ("v", _spec(source_image="nope"), ErrorCode.INVALID, "/spec/source_image"),
        ("v", _spec(source_image="kernel"), ErrorCode.INVALID, "/spec/source_image"),
        ("v", _spec(MIB, source_image="base"), ErrorCode.INVALID, "/spec/size_bytes"),
        (
            "v",
            _spec(1 << 49, format=VolumeFormat.RAW, allocation=Allocation.THICK),
            ErrorCode.INSUFFICIENT_SPACE,
            "/spec/size_bytes",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    tmp_path: Path, volume_id: str, spec: VolumeSpec, code: ErrorCode, pointer: str | None
) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "taken", _spec())
        await world.upload("base", qcow2(size=64 * MIB))
        await world.upload("kernel", bzimage(), ImageFormat.LINUX_KERNEL)
        before = world.files()
        with pytest.raises(MicaError) as caught:
            await world.storage.volumes.create(volume_id, spec, actor="me")
        assert caught.value.problem.code is code
        pointers = [field.pointer for field in caught.value.problem.fields]
        assert pointers == ([pointer] if pointer else [])
        assert world.files() == before
        assert world.storage.datastores.entries["d"].reserved_bytes == 0

    run(tmp_path, scenario)


def test_a_failed_tool_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.qemu_img.error = CommandError(
            "qemu-img failed.",
            replay="qemu-img …",
            returncode=1,
            output="",
            code=ErrorCode.INSUFFICIENT_SPACE,
        )
        ended = await world.ended(await world.storage.volumes.create("v", _spec(), actor="me"))
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert world.files() == []
        world.qemu_img.error = None
        await _make(world, "v", _spec())

    run(tmp_path, scenario)


def test_a_cancelled_creation_leaves_nothing_and_tells_progress(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.upload("base", qcow2(size=64 * MIB))
        before = world.files()
        world.qemu_img.gate = asyncio.Event()
        operation = await world.storage.volumes.create("v", _spec(source_image="base"), actor="me")
        with pytest.raises(MicaError) as caught:
            await world.storage.volumes.create("v", _spec(), actor="me")
        assert caught.value.problem.code is ErrorCode.CONFLICT
        while not world.operations.get(operation.id).progress.done:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        progress = world.operations.get(operation.id).progress
        assert (progress.done, progress.total, progress.stage) == (32 * MIB, 64 * MIB, "convert")
        ended = await world.operations.cancel(operation.id, "me")
        assert ended.state is OperationState.CANCELLED
        assert world.files() == before
        assert not world.storage._catalogue.is_read("base")

    run(tmp_path, scenario)


def test_resizing(tmp_path: Path) -> None:
    async def resize(world: World, size: int, **options: object) -> None:
        fields = {"revision": None, "allow_shrink": False, "actor": "me", **options}
        await world.succeeded(
            await world.storage.volume_resizing.resize("v", size, **fields)  # type: ignore[arg-type]
        )

    async def refused(world: World, size: int, **options: object) -> ErrorCode:
        with pytest.raises(MicaError) as caught:
            await resize(world, size, **options)
        return caught.value.problem.code

    async def scenario(world: World) -> None:
        await _make(world, "v", _spec(64 * MIB))
        await resize(world, 128 * MIB, revision=1)
        volume = await world.storage.volumes.get("v")
        assert (volume.revision, volume.spec.size_bytes) == (2, 128 * MIB)
        assert await refused(world, 256 * MIB, revision=1) is ErrorCode.REVISION_MISMATCH
        assert await refused(world, 64 * MIB) is ErrorCode.CONFLICT
        assert await refused(world, 64 * MIB + 1) is ErrorCode.INVALID
        assert await refused(world, 512) is ErrorCode.INVALID
        world.users.open.add("v")
        assert await refused(world, 64 * MIB, allow_shrink=True) is ErrorCode.IN_USE
        world.users.open.clear()
        await resize(world, 64 * MIB, allow_shrink=True, revision=2)
        again = World(tmp_path, world.medium)
        await again.storage.start()
        found = await again.storage.volumes.get("v")
        assert (found.revision, found.spec.size_bytes) == (3, 64 * MIB)
        await again.storage.stop()

    run(tmp_path, scenario)


def test_deleting(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v", _spec())
        world.users.volumes["v"] = "vm-1"
        assert (await world.storage.volumes.get("v")).status.attached_to == "vm-1"
        with pytest.raises(MicaError) as caught:
            await world.storage.volumes.delete("v", actor="me")
        assert caught.value.problem.code is ErrorCode.IN_USE
        world.users.volumes.clear()
        with pytest.raises(MicaError) as caught:
            await world.storage.volumes.delete("v", actor="me", revision=9)
        assert caught.value.problem.code is ErrorCode.REVISION_MISMATCH
        await world.storage.volumes.delete("v", actor="me", revision=1)
        assert world.files() == []
        with pytest.raises(MicaError) as caught:
            world.storage.for_vms.volume("v")
        assert caught.value.problem.code is ErrorCode.NOT_FOUND

    run(tmp_path, scenario)


def test_a_broken_volume_is_told_cannot_be_used_and_can_be_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world, "v", _spec())
        await _make(world, "w", _spec())
        (tmp_path / "d/volumes/v.json").write_text("{")
        again = World(tmp_path, world.medium)
        await again.storage.start()
        broken = await again.storage.volumes.get("v")
        assert broken.status.reason is not None
        assert [finding.code for finding in again.storage.findings()] == ["volume-unusable"]
        with pytest.raises(MicaError) as caught:
            again.storage.for_vms.volume("v")
        assert caught.value.problem.code is ErrorCode.CONFLICT
        assert again.storage.for_vms.volume("w").id == "w"
        await again.storage.volumes.delete("v", actor="me")
        assert again.files() == ["d/volumes/w.json", "d/volumes/w.qcow2"]
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_file_without_a_description_is_not_overwritten(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        (tmp_path / "d/volumes/v.qcow2").write_bytes(b"precious")
        with pytest.raises(MicaError) as caught:
            await world.storage.volumes.create("v", _spec(), actor="me")
        assert caught.value.problem.code is ErrorCode.CONFLICT

    run(tmp_path, scenario)


def test_lists_are_cut_into_pages(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.datastore("e")
        for name in ("c", "a", "b"):
            await _make(world, name, _spec(MIB))
        await _make(world, "z", _spec(MIB, datastore="e"))
        items, more = await world.storage.volumes.list(None, None, 2)
        assert ([volume.id for volume in items], more) == (["a", "b"], True)
        items, more = await world.storage.volumes.list(None, "b", 2)
        assert ([volume.id for volume in items], more) == (["c", "z"], False)
        items, more = await world.storage.volumes.list("e", None, 2)
        assert ([volume.id for volume in items], more) == (["z"], False)

    run(tmp_path, scenario)


def test_what_an_image_s_tables_say_is_set_aside_and_is_the_limit(tmp_path: Path) -> None:
    """A file of a few KiB may unpack to any size: what counts is what a copy would take."""

    async def scenario(world: World) -> None:
        data = qcow2(size=1 << 40)
        assert (await world.upload("img", data)).state is OperationState.SUCCEEDED
        spec = VolumeSpec(datastore="d", size_bytes=1 << 40, source_image="img")
        world.qemu_img.needed_bytes = 100 << 20
        await world.succeeded(await world.storage.volumes.create("v", spec, actor="test"))
        assert 100 << 20 <= world.qemu_img.limits[-1] < 110 << 20
        world.qemu_img.needed_bytes = 1 << 40
        before = len(world.qemu_img.limits)
        refused = await world.ended(await world.storage.volumes.create("w", spec, actor="test"))
        assert refused.state is OperationState.FAILED
        assert refused.error is not None
        assert refused.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert len(world.qemu_img.limits) == before
        assert not list((tmp_path / "d/.incoming").iterdir())
        world.qemu_img.needed_bytes = 1 << 20  # nothing of it stays set aside
        await world.succeeded(await world.storage.volumes.create("w", spec, actor="test"))

    run(tmp_path, scenario)


def test_sizes_become_whole_sectors_of_4_kib_and_say_so(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = VolumeSpec(datastore="d", size_bytes=(1 << 20) + 512, format=VolumeFormat.RAW)
        await world.succeeded(await world.storage.volumes.create("v", spec, actor="test"))
        volume = await world.storage.volumes.get("v")
        assert volume.spec.size_bytes == (1 << 20) + 4096
        assert (tmp_path / "d/volumes/v.raw").stat().st_size == (1 << 20) + 4096
        operation = await world.storage.volume_resizing.resize(
            "v", (2 << 20) + 512, revision=None, allow_shrink=False, actor="test"
        )
        await world.succeeded(operation)
        volume = await world.storage.volumes.get("v")
        assert volume.spec.size_bytes == (2 << 20) + 4096

    run(tmp_path, scenario)
