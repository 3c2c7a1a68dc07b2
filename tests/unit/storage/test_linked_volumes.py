"""Linked volumes: what protects the one they stand on, what makes them whole, what a datastore
says of one whose base is missing, and when a broken one is seen and seen again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.samples import qcow2
from tests.unit.storage.test_volume_changes import _again, _make, _move
from tests.unit.storage.world import World, run
from vmkernel.model import CheckRepair, ErrorCode, ImageCapture, ImageFormat, MicaError
from vmkernel.storage.catalogue import load
from vmkernel.storage.layout import Layout, Place
from vmkernel.storage.records import VolumeRecord, decode, encode

MIB = 1 << 20


async def _linked(world: World) -> None:
    await _make(world, "base")
    await world.storage.for_vms.link_volume("base", "v", clone="token")


def test_a_linked_volume_names_its_base(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)
        assert world.storage.for_vms.clone_of("v") == "token"
        volume = await world.storage.volumes.get("v")
        assert volume.status.backing == "base"
        assert (await world.storage.volumes.get("base")).status.children == ("v",)
        base = tmp_path / "d/volumes/base.qcow2"
        assert base.stat().st_mode & 0o044 == 0o044
        file = world.storage.for_vms.volume("v")
        assert [layer.path for layer in file.backing] == [base]
        assert world.storage.for_vms.volume("base").children == ("v",)
        # Another on top of it, and what a later vmkernel finds.
        await world.storage.for_vms.link_volume("v", "w", clone="token")
        again = await _again(world, tmp_path)
        chain = [layer.path.name for layer in again.storage.for_vms.volume("w").backing]
        assert chain == ["v.qcow2", "base.qcow2"]
        listed, _ = await again.storage.volumes.list(None, None, 10)
        assert {v.id: v.status.children for v in listed} == {"base": ("v",), "v": ("w",), "w": ()}
        await again.storage.stop()

    run(tmp_path, scenario)


def test_its_base_stays_as_it_is(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)

        async def resize() -> object:
            return await world.storage.volume_resizing.resize(
                "base", 128 * MIB, revision=None, allow_shrink=False, actor="me"
            )

        async def move() -> object:
            return await world.storage.volume_moves.move(
                "base",
                datastore="d",
                volume_format=msgspec.convert(
                    "raw", type=type(world.storage.for_vms.volume("v").format)
                ),
                allocation=(await world.storage.volumes.get("v")).spec.allocation,
                revision=None,
                actor="me",
            )

        async def check() -> object:
            return await world.storage.volume_file_check.check("base", CheckRepair.ALL, actor="me")

        async def delete() -> None:
            await world.storage.volumes.delete("base", actor="me")

        refused: tuple[Callable[[], Awaitable[object]], ...] = (resize, move, check, delete)
        for change in refused:
            with pytest.raises(MicaError, match=r"1 linked to it \(v\)") as caught:
                await change()
            assert caught.value.problem.code is ErrorCode.IN_USE
        await world.succeeded(
            await world.storage.volume_file_check.check("base", CheckRepair.NONE, actor="me")
        )
        resizing = world.storage.volume_resizing  # the child may grow, and not shrink
        ended = await resizing.resize("v", 80 * MIB, revision=None, allow_shrink=False, actor="me")
        await world.succeeded(ended)
        with pytest.raises(MicaError, match="flatten it before"):
            await resizing.resize("v", 70 * MIB, revision=None, allow_shrink=True, actor="me")
        await world.storage.volumes.delete("v", actor="me")
        await delete()
        assert world.files() == []

    run(tmp_path, scenario)


def test_what_is_made_of_a_linked_one_is_whole(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)
        world.qemu_img.calls.clear()
        await world.storage.for_vms.copy_volume(
            "v", "whole", datastore=None, on_progress=lambda *_: None, clone="t"
        )
        capture = ImageCapture(volume="v", format=ImageFormat.RAW)
        await world.succeeded(await world.storage.images.capture("image", capture, actor="me"))
        assert world.qemu_img.calls == [
            "convert qcow2 qcow2 on base.qcow2",
            "convert qcow2 raw on base.qcow2",
        ]
        with pytest.raises(MicaError, match="is linked to others"):
            await world.storage.images.volume_data("v")
        with pytest.raises(MicaError, match="not linked to another"):
            await world.storage.volume_moves.flatten("whole", actor="me")
        ended = await world.succeeded(await world.storage.volume_moves.flatten("v", actor="me"))
        assert ended.kind == "volume.flatten"
        assert (await world.storage.volumes.get("v")).status.backing is None
        await world.storage.volumes.delete("base", actor="me")
        again = await _again(world, tmp_path)
        assert again.storage.for_vms.volume("v").backing == ()
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_crash_while_it_becomes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file is in place and the description is the old one: the file counts."""

    async def scenario(world: World) -> None:
        await _linked(world)
        with monkeypatch.context() as crash:
            crash.setattr(Place, "describe", lambda *_: None)
            await world.succeeded(await _move(world))
        record = tmp_path / "d/volumes/v.json"
        assert decode(VolumeRecord, record.read_bytes()).backing is not None
        again = await _again(world, tmp_path)
        assert (await again.storage.volumes.get("v")).status.backing is None
        assert (await again.storage.volumes.get("base")).status.children == ()
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_linked_one_without_its_base_is_unusable_alone(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)
        await _make(world, "other")
        folder = tmp_path / "d/volumes"
        away = {name: (folder / name).read_bytes() for name in ("base.json", "base.qcow2")}
        for name in away:
            (folder / name).unlink()
        again = await _again(world, tmp_path)
        fault = again.storage.for_vms.fault("v")
        assert fault == "its base, volume base, is missing"
        with pytest.raises(MicaError, match="volume base, is missing"):
            again.storage.for_vms.volume("v")
        assert again.storage.for_vms.fault("other") is None
        assert [f.subject for f in again.storage.findings()] == ["volume/v"]
        await again.storage.stop()
        # Another volume that took the name is not its base.
        for name, data in away.items():
            (folder / name).write_bytes(data)
        record = decode(VolumeRecord, away["base.json"])
        changed = msgspec.structs.replace(record, created_at="2020-01-01T00:00:00.000Z")
        (folder / "base.json").write_bytes(encode(changed))
        again = await _again(world, tmp_path)
        assert "not the one that it was linked to" in (again.storage.for_vms.fault("v") or "")
        await again.storage.stop()
        (folder / "base.json").write_bytes(away["base.json"])
        # A description that can't be read: what the file stands on is still protected.
        (folder / "v.json").write_bytes(b"{")
        again = await _again(world, tmp_path)
        assert again.storage.for_vms.children("base") == ("v",)
        await again.storage.stop()

    run(tmp_path, scenario)


def test_one_that_is_left_out_still_needs_its_base(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)
        await world.datastore("e")
        await _make(world, "w", datastore="e")
        # The other datastore brings a volume of the same name, and comes first.
        folder = tmp_path / "d/volumes"
        record = decode(VolumeRecord, (folder / "v.json").read_bytes())
        (folder / "w.json").write_bytes(encode(msgspec.structs.replace(record, id="w")))
        (folder / "v.qcow2").rename(folder / "w.qcow2")
        (folder / "v.json").unlink()
        world.storage.attachment.leave(world.storage.datastores.entry("d"))
        catalogue = world.storage.volumes._catalogue
        catalogue.add("d", await asyncio.to_thread(load, Layout(tmp_path / "d"), "d"))
        assert catalogue.volumes["w"].datastore == "e"
        with pytest.raises(MicaError, match=r"linked to it \(w\)"):
            await world.storage.volumes.delete("base", actor="me")

    run(tmp_path, scenario)


def test_a_header_that_reaches_for_another_file_makes_it_unusable(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)
        await _make(world, "other")
        folder = tmp_path / "d/volumes"
        (folder / "other.qcow2").write_bytes(qcow2(backing_name="base.qcow2"))
        (folder / "v.qcow2").write_bytes(qcow2(backing_name="/etc/shadow"))
        await world.storage.for_vms.refresh(["other", "v"])
        assert "its description names none" in (world.storage.for_vms.fault("other") or "")
        assert "/etc/shadow" in (world.storage.for_vms.fault("v") or "")
        assert world.storage.for_vms.fault("base") is None

    run(tmp_path, scenario)


def test_a_broken_volume_is_seen_before_a_start_and_comes_back(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _linked(world)
        base = tmp_path / "d/volumes/base.qcow2"
        good = base.read_bytes()
        base.write_bytes(bytes(4) + good[4:])
        assert world.storage.for_vms.fault("v") is None
        await world.storage.for_vms.refresh(["v"])
        assert "does not begin like a qcow2" in (world.storage.for_vms.fault("base") or "")
        assert "its base, volume base, can't be used" in (world.storage.for_vms.fault("v") or "")
        base.write_bytes(good)
        # What watches the datastores looks at broken ones again.
        entry = world.storage.datastores.entry("d")
        await world.storage.monitor.refresh(entry)
        assert world.storage.for_vms.fault("v") is None
        assert world.storage.for_vms.volume("v").backing

    run(tmp_path, scenario)


def test_a_volume_that_is_marked_as_corrupt_can_be_checked(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        path = tmp_path / "d/volumes/v.qcow2"
        path.write_bytes(qcow2(size=64 * MIB, incompatible=1 << 1))
        await world.storage.for_vms.refresh(["v"])
        assert "marked as corrupt" in (world.storage.for_vms.fault("v") or "")
        path.write_bytes(qcow2(size=64 * MIB))  # what `qemu-img check -r all` makes of it
        await world.succeeded(
            await world.storage.volume_file_check.check("v", CheckRepair.ALL, actor="me")
        )
        assert world.storage.for_vms.fault("v") is None

    run(tmp_path, scenario)
