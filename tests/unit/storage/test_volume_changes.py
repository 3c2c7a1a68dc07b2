"""Copies, moves, conversions and checks of volumes; and what a crash in the middle leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.storage.world import World, run
from vmkernel.host.files import rename_durably
from vmkernel.host.qemu_img import CheckReport
from vmkernel.model import (
    Allocation,
    CheckRepair,
    ErrorCode,
    ImageCapture,
    ImageFormat,
    MicaError,
    Operation,
    OperationState,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.storage.layout import Place
from vmkernel.storage.volumes.moves import LastStep

MIB = 1 << 20


async def _make(world: World, volume_id: str = "v", **fields: Any) -> None:
    spec = VolumeSpec(**{"datastore": "d", "size_bytes": 64 * MIB, **fields})
    await world.succeeded(await world.storage.volumes.create(volume_id, spec, actor="me"))


async def _move(world: World, **changes: Any) -> Operation:
    wanted = {
        "datastore": "d",
        "volume_format": VolumeFormat.QCOW2,
        "allocation": Allocation.THIN,
        "revision": None,
        **changes,
    }
    return await world.storage.volume_moves.move("v", actor="me", **wanted)


async def _again(world: World, root: Path) -> World:
    again = World(root, world.medium)
    await again.storage.start()
    return again


def test_a_copy_is_a_volume_of_its_own(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        (tmp_path / "d/volumes/v.qcow2").write_bytes(
            (tmp_path / "d/volumes/v.qcow2").read_bytes() + b"data"
        )
        await _make(world, "w", source_volume="v")
        assert (await world.storage.volumes.get("w")).spec.source_volume == "v"
        await _make(world, "x", source_volume="v", format=VolumeFormat.RAW, size_bytes=128 * MIB)
        assert world.storage.for_vms.volume("x").size_bytes == 128 * MIB
        await world.storage.clones.copy("v", "y")
        assert world.storage.for_vms.volume("y").format is VolumeFormat.QCOW2
        world.users.open.add("v")
        for code, changes in (
            (ErrorCode.IN_USE, {}),
            (ErrorCode.INVALID, {"source_volume": "nope"}),
            (ErrorCode.INVALID, {"source_image": "base"}),
            (ErrorCode.INVALID, {"source_volume": "x", "size_bytes": MIB}),
        ):
            with pytest.raises(MicaError) as caught:
                await _make(world, "z", **{"source_volume": "v", **changes})
            assert caught.value.problem.code is code
            assert caught.value.problem.fields[0].pointer.startswith("/spec/")

    run(tmp_path, scenario)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"datastore": "e"},
        {"datastore": "e", "volume_format": VolumeFormat.RAW},
        {"volume_format": VolumeFormat.RAW},
        {"allocation": Allocation.THICK},
    ],
)
def test_a_volume_moves_and_is_there_once(
    tmp_path: Path, live: bool, changes: dict[str, Any]
) -> None:
    async def scenario(world: World) -> None:
        await world.datastore("e")
        await _make(world)
        if live:
            world.users.open.add("v")
        await world.succeeded(await _move(world, **changes))
        assert bool(world.live.calls) is live
        moved = await world.storage.volumes.get("v")
        assert moved.revision == 2
        assert moved.spec.datastore == changes.get("datastore", "d")
        assert moved.spec.format is changes.get("volume_format", VolumeFormat.QCOW2)
        assert moved.spec.allocation is changes.get("allocation", Allocation.THIN)
        suffix = moved.spec.format.value
        folder = f"{moved.spec.datastore}/volumes"
        assert world.files() == [f"{folder}/v.json", f"{folder}/v.{suffix}"]
        again = await _again(world, tmp_path)
        assert (await again.storage.volumes.get("v")).spec == moved.spec
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_move_that_fails_or_is_cancelled_leaves_the_volume(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.datastore("e")
        await _make(world)
        before, known = world.files(), await world.storage.volumes.get("v")
        world.users.open.add("v")
        world.live.before = MicaError(ErrorCode.UNAVAILABLE, "QEMU is gone.")
        assert (await world.ended(await _move(world, datastore="e"))).error is not None
        assert (world.files(), await world.storage.volumes.get("v")) == (before, known)
        world.live.before, world.live.after = None, MicaError(ErrorCode.UNAVAILABLE, "It refuses.")
        assert (await world.ended(await _move(world, datastore="e"))).error is not None
        assert world.files() == before
        assert (await world.storage.volumes.get("v")).revision == 3
        world.live.after, world.live.gate = None, asyncio.Event()
        operation = await _move(world, datastore="e")
        while len(world.live.calls) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(MicaError, match="being moved"):
            world.storage.for_vms.volume("v")
        ended = await world.operations.cancel(operation.id, "me")
        assert ended.state is OperationState.CANCELLED
        assert world.files() == before
        assert world.storage.datastores.entries["e"].reserved_bytes == 0

    run(tmp_path, scenario)


def test_a_taken_place_is_refused(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.datastore("e")
        await _make(world)
        (tmp_path / "e/volumes/v.qcow2").write_bytes(b"precious")
        with pytest.raises(MicaError) as caught:
            await _move(world, datastore="e")
        assert caught.value.problem.code is ErrorCode.CONFLICT

    run(tmp_path, scenario)


class _PowerCutError(Exception):
    """Nothing after it happens."""


_STEPS = ("mark", "describe", "rename", "remove")


def _cut(monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Let everything fail once the named step of a move is done."""
    done: list[str] = []

    def step(name: str, original: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any) -> None:
            if after in done:
                raise _PowerCutError
            original(*args)
            done.append("describe" if name == "mark" and "mark" in done else name)

        return wrapped

    monkeypatch.setattr(Place, "describe", step("mark", Place.describe))
    monkeypatch.setattr(Place, "remove", step("remove", Place.remove))
    monkeypatch.setattr("vmkernel.storage.layout.rename_durably", step("rename", rename_durably))


async def _all_refuse(world: World) -> None:
    """Whatever reads or changes a volume refuses one that nobody knows the place of."""
    capture = ImageCapture(volume="v", format=ImageFormat.RAW)
    clone = VolumeSpec(datastore="d", size_bytes=1 << 20, source_volume="v")
    storage = world.storage

    async def look() -> object:
        return storage.for_vms.volume("v")

    for attempt in (
        look(),
        storage.images.volume_data("v"),
        storage.images.read_volume("v", 0, 1, actor="me"),
        storage.images.capture("i", capture, actor="me"),
        storage.volumes.create("w", clone, actor="me"),
        storage.volume_data().write("v", 0, 1, actor="me"),
    ):
        with pytest.raises(MicaError, match="was being moved") as caught:
            await attempt
        assert caught.value.problem.code is ErrorCode.CONFLICT


@pytest.mark.parametrize("after", _STEPS)
@pytest.mark.parametrize("other_is_late", [False, True])
def test_a_crash_in_the_last_step_leaves_exactly_one(
    tmp_path: Path, after: str, other_is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the move is cut, one volume is found; none while nobody can know which."""

    async def scenario(world: World) -> None:
        await world.datastore("e")
        await _make(world)
        entry = world.storage._catalogue.volume("v")
        place = world.storage.datastores.layout("e").volume("v", VolumeFormat.QCOW2)
        place.incoming.write_bytes(entry.place.data.read_bytes())
        step = LastStep(
            world.storage._catalogue,
            entry,
            "e",
            world.storage.datastores.uuid("e"),
            place,
            (VolumeFormat.QCOW2, Allocation.THIN, entry.size_bytes),
        )
        with monkeypatch.context() as patched:
            _cut(patched, after)
            with contextlib.suppress(_PowerCutError):
                await step.commit()
                await step.clean()
        if other_is_late:
            (tmp_path / "e").rename(tmp_path / "away")
        again = await _again(world, tmp_path)
        if other_is_late:
            if after != "remove":
                await _all_refuse(again)
            (tmp_path / "away").rename(tmp_path / "e")
            await again.storage.monitor.refresh(again.storage.datastores.entries["e"])
        moved = after != "mark"
        assert again.storage.for_vms.volume("v").datastore == ("e" if moved else "d")
        name = "e" if moved else "d"
        assert again.files() == [f"{name}/volumes/v.json", f"{name}/volumes/v.qcow2"]
        assert list(again.storage.findings()) == []
        await again.storage.stop()

    run(tmp_path, scenario)


@pytest.mark.parametrize("after", ["mark", "rename"])
def test_a_crash_in_a_conversion_leaves_exactly_one(
    tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        entry = world.storage._catalogue.volume("v")
        place = world.storage.datastores.layout("d").volume("v", VolumeFormat.RAW)
        place.incoming.write_bytes(bytes(4096))
        uuid = world.storage.datastores.uuid("d")
        step = LastStep(
            world.storage._catalogue,
            entry,
            "d",
            uuid,
            place,
            (VolumeFormat.RAW, Allocation.THIN, 1),
        )
        with monkeypatch.context() as patched:
            _cut(patched, after)
            with contextlib.suppress(_PowerCutError):
                await step.commit()
        again = await _again(world, tmp_path)
        assert again.storage.for_vms.volume("v").format is VolumeFormat.RAW
        assert again.files() == ["d/volumes/v.json", "d/volumes/v.raw"]
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_check_is_remembered(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        await _make(world, "r", format=VolumeFormat.RAW)
        world.qemu_img.report = CheckReport(2, 3, 0, 0)
        changes = world.storage.volume_file_check
        ended = await world.ended(await changes.check("v", CheckRepair.NONE, actor="me"))
        assert ended.error is not None
        assert ended.error.code is ErrorCode.CONFLICT
        await world.succeeded(await changes.check("v", CheckRepair.ALL, actor="me"))
        assert world.qemu_img.calls[-2:] == ["check qcow2 None", "check qcow2 all"]
        again = await _again(world, tmp_path)
        found = (await again.storage.volumes.get("v")).status.last_check
        assert found is not None
        assert (found.corruptions, found.leaks) == (0, 0)
        await again.storage.stop()
        for volume, code in (("r", ErrorCode.UNSUPPORTED), ("v", ErrorCode.IN_USE)):
            world.users.open.add("v")
            with pytest.raises(MicaError) as caught:
                await changes.check(volume, CheckRepair.NONE, actor="me")
            assert caught.value.problem.code is code

    run(tmp_path, scenario)


def test_a_check_finds_snapshots_that_no_vm_has(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        known, stray = f"mica-{'a' * 16}", f"mica-{'b' * 16}"
        inside = world.qemu_img.inside["v.qcow2"] = {known, stray, "someone's"}
        world.users.tags = {"v": frozenset({known})}

        async def check(repair: CheckRepair) -> tuple[int, int]:
            checked = await world.storage.volume_file_check.check("v", repair, actor="me")
            await world.succeeded(checked)
            found = (await world.storage.volumes.get("v")).status.last_check
            assert found is not None
            return found.snapshots, found.snapshots_removed

        assert await check(CheckRepair.NONE) == (2, 0)
        world.users.tags = None
        assert await check(CheckRepair.ALL) == (0, 0), "a VM may come that has them"
        assert len(inside) == 3
        world.users.tags = {"v": frozenset({known})}
        assert await check(CheckRepair.LEAKS) == (1, 1)
        assert inside == {known, "someone's"}
        assert await check(CheckRepair.ALL) == (0, 1)
        assert inside == {known}

    run(tmp_path, scenario)


def test_a_running_vm_s_volume_grows(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world, format=VolumeFormat.RAW)
        world.users.open.add("v")
        await world.succeeded(
            await world.storage.volume_resizing.resize(
                "v", 128 * MIB, revision=1, allow_shrink=False, actor="me"
            )
        )
        assert world.live.calls == [f"resize v {128 * MIB}"]
        assert (await world.storage.volumes.get("v")).revision == 2

    run(tmp_path, scenario)
