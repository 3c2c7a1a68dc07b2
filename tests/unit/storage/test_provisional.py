"""Volumes that are deleted unless a VM names them: in time, over restarts, and never by mistake."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.storage.world import World, run
from vmkernel.host import files
from vmkernel.model import (
    Allocation,
    ErrorCode,
    ImageCapture,
    ImageFormat,
    MicaError,
    OperationState,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.storage import patience
from vmkernel.storage.layout import Place
from vmkernel.storage.records import VolumeRecord
from vmkernel.storage.volumes import provisional

MIB = 1 << 20


SWEPT = [0]
"""How often there was a whole sweep."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisional, "SWEEP_S", 0.01)
    sweep = provisional.ProvisionalVolumes.sweep

    async def counted(volumes: provisional.ProvisionalVolumes) -> tuple[str, ...]:
        over = await sweep(volumes)
        SWEPT[0] += 1
        return over

    monkeypatch.setattr(provisional.ProvisionalVolumes, "sweep", counted)


class Clock:
    """`time`, as provisional.py sees it."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.0 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(provisional, "time", found)
    return found


async def _make(world: World, volume_id: str = "v", seconds: int | None = 60) -> None:
    spec = VolumeSpec(
        datastore="d",
        size_bytes=2 * MIB,
        format=VolumeFormat.RAW,
        delete_unless_used_s=seconds,
    )
    await world.succeeded(await world.storage.volumes.create(volume_id, spec, actor="me"))
    await _sweeps()  # the clock stands still until then


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def _sweeps() -> None:
    end = SWEPT[0] + 4
    await _until(lambda: SWEPT[0] >= end)


def _there(world: World, volume_id: str = "v") -> bool:
    return world.storage.for_vms.fault(volume_id) is None


def _send(stream: socket.socket) -> None:
    with stream:
        stream.sendall(bytes(512))
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(100) == b""


def _events(world: World) -> list[str]:
    found = []
    while (event := world.heard.poll()) is not None:
        found.append(event.type)
    return found


def test_one_that_nothing_uses_is_deleted_in_its_time(tmp_path: Path, clock: Clock) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        await _make(world, "stays", None)
        shown = await world.storage.volumes.get("v")
        assert shown.spec.delete_unless_used_s == 60
        assert shown.status.expires_at is not None
        assert (await world.storage.volumes.get("stays")).status.expires_at is None
        clock.now += 59
        await _sweeps()
        assert _there(world)
        clock.now += 2
        await _until(lambda: world.files() == ["d/volumes/stays.json", "d/volumes/stays.raw"])
        await _until(lambda: "volume.expired" in _events(world))

    run(tmp_path, scenario)


def test_one_that_a_vm_names_stays_for_good(tmp_path: Path, clock: Clock) -> None:
    """Also if the VM goes again, and over a restart."""

    async def scenario(world: World) -> None:
        await _make(world)
        world.users.volumes["v"] = "web"
        await world.storage.for_vms.keep_volumes(["v"])
        world.users.volumes.clear()
        shown = await world.storage.volumes.get("v")
        assert (shown.spec.delete_unless_used_s, shown.status.expires_at) == (None, None)
        clock.now += 1_000
        await _sweeps()
        again = World(tmp_path, world.medium)
        await again.storage.start()
        clock.now += 1_000
        await _sweeps()
        assert _there(again)
        await again.storage.stop()

    run(tmp_path, scenario)


def test_a_restart_forgets_no_mark(tmp_path: Path, clock: Clock) -> None:
    """The time begins anew; one that a VM names by then is kept, whoever had to write that down."""

    async def scenario(world: World) -> None:
        await _make(world)
        await _make(world, "named")
        clock.now += 59
        again = World(tmp_path, world.medium)
        again.users.volumes["named"] = "web"  # the vmkernel ended before it took the mark away
        await again.storage.start()
        await _sweeps()
        clock.now += 59
        await _sweeps()
        assert _there(again)
        assert (await again.storage.volumes.get("named")).spec.delete_unless_used_s is None
        again.users.volumes.clear()
        clock.now += 2
        await _until(lambda: not _there(again))
        assert _there(again, "named")
        await again.storage.stop()

    run(tmp_path, scenario)


def test_nothing_is_deleted_while_its_vm_may_be_unknown(tmp_path: Path, clock: Clock) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        world.users.unknown = True
        await _sweeps()
        clock.now += 1_000
        await _sweeps()
        assert _there(world)
        world.users.unknown = False
        await _until(lambda: not _there(world))

    run(tmp_path, scenario)


def test_work_on_it_moves_its_time_on(tmp_path: Path, clock: Clock) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        await _sweeps()
        for _ in range(4):
            clock.now += 40
            await asyncio.to_thread(
                _send, await world.storage.volume_data().write("v", 0, 512, actor="me")
            )
            await _sweeps()
            assert _there(world)
        clock.now += 61
        await _until(lambda: not _there(world))

    run(tmp_path, scenario)


def test_a_use_at_the_very_end_wins_or_is_refused(tmp_path: Path, clock: Clock) -> None:
    """What a VM is about to name isn't deleted; one that is being deleted can't be named."""

    async def scenario(world: World) -> None:
        await _make(world)
        await _sweeps()
        world.users.claims.add("v")
        clock.now += 1_000
        await _sweeps()
        assert _there(world)
        entry = world.storage.volumes.usable("v")
        removing, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        class Slow:
            """Its place, whose removal takes a while."""

            def remove(self) -> None:
                loop.call_soon_threadsafe(removing.set)
                assert go_on.wait(10)
                type(entry.place).remove(entry.place)

            def __getattr__(self, name: str) -> object:
                return getattr(entry.place, name)

        object.__setattr__(entry, "place", Slow())
        world.users.claims.clear()
        await asyncio.wait_for(removing.wait(), 10)
        with pytest.raises(MicaError):
            world.storage.for_vms.volume("v")
        go_on.set()
        await _until(lambda: not _there(world))

    run(tmp_path, scenario)


def test_another_by_the_same_id_has_its_own_time(tmp_path: Path, clock: Clock) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        await _sweeps()
        clock.now += 50
        await world.storage.volumes.delete("v", actor="me")
        await _make(world)
        await _sweeps()
        clock.now += 50
        await _sweeps()
        assert _there(world)
        clock.now += 11
        await _until(lambda: not _there(world))

    run(tmp_path, scenario)


def test_one_can_be_kept_without_a_vm(tmp_path: Path, clock: Clock) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        await world.succeeded(await world.storage.volumes.keep("v", actor="me"))
        clock.now += 1_000
        await _sweeps()
        assert (await world.storage.volumes.get("v")).spec.delete_unless_used_s is None

    run(tmp_path, scenario)


def test_a_vm_may_open_what_is_being_kept_for_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark goes as soon as a VM names the volume, and then the VM opens it."""
    begun, goes_on = threading.Event(), threading.Event()

    async def scenario(world: World) -> None:
        await _make(world)
        real = files.write_durably

        def slow(*given: Any, **named: Any) -> Any:
            begun.set()
            assert goes_on.wait(10)
            return real(*given, **named)

        monkeypatch.setattr("vmkernel.storage.layout.write_durably", slow)
        world.users.volumes["v"] = "web"
        await _until(begun.is_set)
        try:
            assert world.storage.for_vms.volume("v").path.exists()
        finally:
            goes_on.set()
        await _until(
            lambda: world.storage.volumes.checks.sound("v")[1].delete_unless_used_s is None
        )

    run(tmp_path, scenario)


async def _writes(world: World) -> None:
    stream = await world.storage.volume_data().write("v", 0, 512, actor="me")
    await asyncio.to_thread(_send, stream)


async def _moves(world: World) -> None:
    move = world.storage.volume_moves.move(
        "v",
        datastore="d",
        volume_format=VolumeFormat.QCOW2,
        allocation=Allocation.THIN,
        revision=None,
        actor="me",
    )
    await world.succeeded(await move)


async def _resizes(world: World) -> None:
    resize = world.storage.volume_resizing.resize(
        "v", 4 * MIB, revision=None, allow_shrink=False, actor="me"
    )
    await world.succeeded(await resize)


async def _copies(world: World) -> None:
    spec = VolumeSpec(datastore="d", size_bytes=2 * MIB, format=VolumeFormat.RAW, source_volume="v")
    await world.succeeded(await world.storage.volumes.create("copy", spec, actor="me"))


async def _clones(world: World) -> None:
    await world.storage.clones.copy(
        "v", "clone", datastore=None, on_progress=lambda _done, _total: None, clone="token"
    )


async def _links(world: World) -> None:
    await world.storage.clones.link("v", "linked")


async def _captures(world: World) -> None:
    capture = ImageCapture(volume="v", format=ImageFormat.QCOW2)
    await world.succeeded(await world.storage.images.capture("image", capture, actor="me"))


async def _looks(world: World) -> None:
    await world.storage.images.volume_data("v")
    await world.storage.images.map_volume("v", 0)


async def _downloads(world: World) -> None:
    _, stream = await world.storage.images.read_volume("v", 0, 512, actor="me")
    with stream:
        assert len(await asyncio.to_thread(stream.recv, 1 << 20)) == 512


async def _keeps(world: World) -> None:
    await world.succeeded(await world.storage.volumes.keep("v", actor="me"))


async def _deletes(world: World) -> None:
    world.users.volumes.clear()
    await world.storage.volumes.delete("v", actor="me")


REQUESTS = (
    _writes,
    _moves,
    _resizes,
    _copies,
    _clones,
    _links,
    _captures,
    _looks,
    _downloads,
    _keeps,
    _deletes,
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__.strip("_"))
def test_a_request_waits_while_a_volume_is_being_kept(
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    request_: Callable[[World], Awaitable[None]],
) -> None:
    """Its client need not know that Mica writes that down just now."""
    begun, goes_on = threading.Event(), threading.Event()

    async def scenario(world: World) -> None:
        await _make(world)
        real = files.write_durably

        def slow(*given: Any, **named: Any) -> Any:
            begun.set()
            assert goes_on.wait(10)
            return real(*given, **named)

        monkeypatch.setattr("vmkernel.storage.layout.write_durably", slow)
        world.users.volumes["v"] = "web"
        await _until(begun.is_set)
        asked = asyncio.ensure_future(request_(world))
        try:
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert not asked.done()
        finally:
            goes_on.set()
        await asked

    run(tmp_path, scenario)


@pytest.mark.parametrize("look", ["volume_data", "map_volume"])
def test_a_request_waits_while_somebody_asks_what_there_is_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """A VM may open the volume meanwhile; with a download beside it, the request is refused."""

    async def scenario(world: World) -> None:
        await _make(world, seconds=None)
        begun, goes_on = asyncio.Event(), asyncio.Event()
        probe = type(world.storage.datastores).probe

        async def slow(*given: Any, **named: Any) -> Any:
            begun.set()
            await goes_on.wait()
            return await probe(*given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(world.storage.datastores), "probe", slow)
            more = () if look == "volume_data" else (0,)
            looking = asyncio.ensure_future(getattr(world.storage.images, look)("v", *more))
            await begun.wait()
        assert world.storage.for_vms.volume("v").path.exists()
        resizing = asyncio.ensure_future(_resizes(world))
        await asyncio.sleep(0.1)
        assert not resizing.done()
        with world.storage.volumes.exporting("v"):
            with pytest.raises(MicaError, match="is being exported"):
                await resizing
            with pytest.raises(MicaError, match="is being exported"):
                world.storage.for_vms.volume("v")
        resizing = asyncio.ensure_future(_resizes(world))
        goes_on.set()
        await looking
        await resizing

    run(tmp_path, scenario)


def test_a_wait_for_what_never_ends_is_over_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_PATIENCE_S", 0.1)

    async def scenario(world: World) -> None:
        await _make(world)
        with world.storage._catalogue.locked("volume", "v", "kept", brief=True):
            with pytest.raises(MicaError, match="is being kept") as caught:
                await _deletes(world)
        assert caught.value.problem.code is ErrorCode.CONFLICT
        assert _there(world)

    run(tmp_path, scenario)


def test_a_mark_that_can_not_go_now_goes_later(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails while a VM gets its volume: the VM has it, and it stays."""

    async def scenario(world: World) -> None:
        await _make(world)
        real = files.write_durably

        def fail(*_: object, **__: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("vmkernel.storage.layout.write_durably", fail)
        world.users.volumes["v"] = "web"
        await world.storage.for_vms.keep_volumes(["v"])
        operation = await world.ended(await world.storage.volumes.keep("v", actor="me"))
        assert operation.state is OperationState.FAILED
        clock.now += 1_000
        await _sweeps()
        assert _there(world)
        assert (await world.storage.volumes.get("v")).spec.delete_unless_used_s == 60
        monkeypatch.setattr("vmkernel.storage.layout.write_durably", real)
        await _until(
            lambda: world.storage.volumes.checks.sound("v")[1].delete_unless_used_s is None
        )

    run(tmp_path, scenario)


def test_a_move_takes_the_mark_along(tmp_path: Path, clock: Clock) -> None:
    async def scenario(world: World) -> None:
        await _make(world)
        await world.datastore("other")
        move = await world.storage.volume_moves.move(
            "v",
            datastore="other",
            volume_format=VolumeFormat.RAW,
            allocation=Allocation.THIN,
            revision=None,
            actor="me",
        )
        await world.succeeded(move)
        assert (await world.storage.volumes.get("v")).spec.delete_unless_used_s == 60
        await _sweeps()
        clock.now += 61
        await _until(lambda: world.files() == [])

    run(tmp_path, scenario)


class _EndsError(Exception):
    """The vmkernel is killed."""


@pytest.mark.parametrize("written", range(5))
def test_volumes_that_are_kept_together_stay_all_or_none(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Wherever the vmkernel is killed: after each of the descriptions that are written, or before
    the first."""
    names = ("v", "w", "x")
    describe = Place.describe
    left = [written]

    def killed_after(place: Place, record: VolumeRecord) -> None:
        if not left[0]:
            raise _EndsError
        left[0] -= 1
        describe(place, record)

    async def scenario(world: World) -> None:
        for name in names:
            await _make(world, name)
        volumes = world.storage.volumes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Place, "describe", killed_after)
            patch.setattr(provisional, "SWEEP_S", 1_000.0)
            ended = await world.ended(await volumes.keep("v", together_with=("w", "x"), actor="me"))
            assert (ended.state is OperationState.SUCCEEDED) is (written == 4)
        again = World(tmp_path, world.medium)
        await again.storage.start()
        await _sweeps()
        for _ in range(3):
            clock.now += 61
            await _sweeps()
        if written:
            assert all(_there(again, name) for name in names)
            for name in names:
                shown = await again.storage.volumes.get(name)
                assert (shown.spec.delete_unless_used_s, shown.status.expires_at) == (None, None)
            await _until(lambda: b'"keeps": []' in (tmp_path / "d/volumes/v.json").read_bytes())
        else:
            await _until(lambda: not any(_there(again, name) for name in names))
        await again.storage.stop()

    run(tmp_path, scenario)


def test_what_cant_be_kept_together_is_refused_and_nothing_is_kept(
    tmp_path: Path, clock: Clock
) -> None:
    async def scenario(world: World) -> None:
        await world.datastore("e")
        await _make(world)
        await _make(world, "w")
        far = VolumeSpec(datastore="e", size_bytes=2 * MIB, delete_unless_used_s=60)
        await world.succeeded(await world.storage.volumes.create("far", far, actor="me"))
        for others, place in ((("w", "no"), 1), (("far",), 0), (("w", "w"), 1), (("v",), 0)):
            with pytest.raises(MicaError) as refused:
                await world.storage.volumes.keep("v", together_with=others, actor="me")
            assert refused.value.problem.fields[0].pointer == f"/together_with/{place}"
        for name in ("v", "w", "far"):
            shown = await world.storage.volumes.get(name)
            assert shown.spec.delete_unless_used_s == 60
        await world.succeeded(
            await world.storage.volumes.keep("v", together_with=("w",), actor="me")
        )

    run(tmp_path, scenario)
