"""Taking a datastore up: a step that fails leaves no lease, no mount and nothing half known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.world import World, run
from vmkernel.model import DatastoreState, ErrorCode, MicaError, VolumeSpec
from vmkernel.state import StoredDatastore
from vmkernel.storage.catalogue import Catalogue
from vmkernel.storage.datastores import attachment as module
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.lease import Identity, LeaseHeld, Leases, TakeoverMode
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.drivers.base import Attached, CreateOptions, Observation
from vmkernel.storage.drivers.directory import DirectoryDriver
from vmkernel.storage.layout import Layout
from vmkernel.storage.records import RecordError

STEPS: dict[str, tuple[object, str]] = {
    "marker": (Layout, "open"),
    "contents": (module, "load"),
    "changed spec": (Datastores, "keep"),
    "space": (Capacity, "refresh"),
    "members": (DirectoryDriver, "observe"),
    "catalogue": (Catalogue, "add"),
    "moves": (module, "settle_moves"),
    "listeners": (Datastores, "tell"),
}
FOUND_PERCENT = 99
ERRORS = {
    "MicaError": MicaError(ErrorCode.TIMED_OUT, "It does not answer."),
    "OSError": OSError(5, "Input/output error"),
    "RecordError": RecordError("its marker can't be read"),
    "defect": ZeroDivisionError("a defect"),
}


def _breaks(patch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
    owner, name = STEPS[step]
    good: Callable[..., object] = getattr(owner, name)

    def fails(*args: object, **named: object) -> object:
        going = named.get("available") is False  # the listeners hear of that all the same
        asked = step == "changed spec" and any(
            isinstance(arg, StoredDatastore) and not _is_found(arg) for arg in args
        )
        if going or asked:
            return good(*args, **named)
        raise error

    patch.setattr(owner, name, fails)


def _is_found(stored: StoredDatastore) -> bool:
    """True for a description as the driver found it, not as a request changes it."""
    return stored.spec.warning_percent == FOUND_PERCENT


def _drives(patch: pytest.MonkeyPatch) -> list[str]:
    """Let a directory be attached with another spec than is stored, as disks may be; what is
    mounted now."""
    mounted: list[str] = []
    attach, detach = DirectoryDriver.attach, DirectoryDriver.detach

    async def attaches(self: DirectoryDriver, stored: StoredDatastore) -> Attached:
        found = await attach(self, stored)
        if stored.id not in mounted:
            mounted.append(stored.id)
        return replace(
            found, spec=msgspec.structs.replace(stored.spec, warning_percent=FOUND_PERCENT)
        )

    async def detaches(
        self: DirectoryDriver, stored: StoredDatastore, *, force: bool = False
    ) -> None:
        await detach(self, stored, force=force)
        if stored.id in mounted:
            mounted.remove(stored.id)

    async def observes(self: DirectoryDriver, stored: StoredDatastore) -> Observation:
        return Observation()

    patch.setattr(DirectoryDriver, "attach", attaches)
    patch.setattr(DirectoryDriver, "detach", detaches)
    patch.setattr(DirectoryDriver, "observe", observes)
    return mounted


def _state(world: World) -> DatastoreState:
    return world.storage.datastores.entry("d").state


def _is_free(world: World, name: str = "d") -> None:
    """Another host can have the datastore without asking."""
    other = Leases(lambda: Identity("uuid-other", "other", ""))
    uuid = Layout(world.root / name).read_marker()
    assert uuid is not None
    assert other.take(world.root / name, uuid.uuid, TakeoverMode.OWN) is None
    other.release(world.root / name, uuid.uuid)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    async def scenario(world: World) -> None:
        spec = VolumeSpec(datastore="d", size_bytes=1 << 20)
        await world.succeeded(await world.storage.volumes.create("v", spec, actor="me"))
        await world.succeeded(await world.storage.datastore_changes.unmount("d", actor="me"))
        mounted = _drives(monkeypatch)
        heard: list[bool] = []
        world.storage.for_vms.on_datastore_change(lambda _, there: heard.append(there))
        with pytest.MonkeyPatch.context() as patch:
            _breaks(patch, step, error)
            ended = await world.ended(await world.storage.datastore_changes.mount("d", actor="me"))
            assert ended.error is not None
            assert mounted == []
            _is_free(world)
            entry = world.storage.datastores.entry("d")
            assert _state(world) is DatastoreState.FAILED
            assert (entry.attached, entry.layout) == (None, None)
            assert (await world.storage.volumes.list(None, None, 9))[0] == ()
            assert True not in heard or heard[-1] is False
            with contextlib.suppress(type(error)):
                await world.storage.monitor.refresh(entry)
            assert mounted == []
            _is_free(world)
        await world.storage.monitor.refresh(entry)
        assert _state(world) is DatastoreState.AVAILABLE
        assert mounted == ["d"]
        assert (await world.storage.volumes.get("v")).id == "v"
        assert heard[-1] is True

    run(tmp_path, scenario)


def _is_held(world: World) -> None:
    """Another host can't have the datastore, however long it has been silent."""
    with pytest.raises(LeaseHeld):
        _is_free(world)


@pytest.mark.parametrize("known", [True, False], ids=["VM runs", "VMs not known yet"])
@pytest.mark.parametrize("step", STEPS)
def test_what_cannot_be_taken_up_stays_ours_while_vms_may_run_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, known: bool
) -> None:
    """A vmkernel that comes again finds the VMs of the one before it at work."""

    async def scenario(world: World) -> None:
        mounted = _drives(monkeypatch)
        again = World(tmp_path, world.medium)
        again.storage.datastores.load()
        entry = again.storage.datastores.entry("d")
        again.users.active["d"] = ("web",)
        again.storage.usage._bound = known
        with pytest.MonkeyPatch.context() as patch:
            _breaks(patch, step, ERRORS["MicaError"])
            for _ in range(2):
                await again.storage.monitor.refresh(entry)
                assert entry.state is DatastoreState.FAILED
                assert mounted == ["d"]
                _is_held(again)
            if known:
                with pytest.raises(MicaError, match="VM web uses datastore d"):
                    await again.storage.datastore_changes.delete("d", actor="me")
            again.users.active = {}
            again.storage.usage._bound = True
            await again.storage.monitor.refresh(entry)
            assert mounted == []
            _is_free(again)
        await again.storage.monitor.refresh(entry)
        assert entry.state is DatastoreState.AVAILABLE
        _is_held(again)

    run(tmp_path, scenario)


@pytest.mark.parametrize("change", ["delete", "unmount", "rename"])
def test_what_failed_while_vms_ran_is_let_go_with_the_datastore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    async def scenario(world: World) -> None:
        mounted = _drives(monkeypatch)
        again = World(tmp_path, world.medium)
        again.storage.datastores.load()
        entry = again.storage.datastores.entry("d")
        again.users.active["d"] = ("web",)
        with pytest.MonkeyPatch.context() as patch:
            _breaks(patch, "contents", ERRORS["MicaError"])
            await again.storage.monitor.refresh(entry)
            assert mounted == ["d"]
            _is_held(again)
            again.users.active = {}
            changes = again.storage.datastore_changes
            if change == "rename":
                operation = await changes.rename("d", "new", actor="me")
            else:
                operation = await getattr(changes, change)("d", actor="me")
            await again.succeeded(operation)
        assert mounted == []
        _is_free(again)

    run(tmp_path, scenario)


@pytest.mark.parametrize("used", [False, True])
def test_what_goes_away_in_use_is_free_for_others_unless_vms_run_there(
    tmp_path: Path, used: bool
) -> None:
    async def scenario(world: World) -> None:
        entry = world.storage.datastores.entry("d")
        if used:
            world.users.active["d"] = ("web",)
        with pytest.MonkeyPatch.context() as patch:

            async def away(*_: object) -> bool:
                return False

            patch.setattr(DirectoryDriver, "present", away)
            await world.storage.monitor.refresh(entry)
        assert entry.state.value == "missing"
        (_is_held if used else _is_free)(world)
        await world.storage.monitor.refresh(entry)
        assert entry.state is DatastoreState.AVAILABLE
        _is_held(world)

    run(tmp_path, scenario)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "changed spec"])
def test_a_creation_that_fails_leaves_no_datastore(tmp_path: Path, step: str) -> None:
    async def scenario(world: World) -> None:
        changes = world.storage.datastore_changes
        with pytest.MonkeyPatch.context() as patch:
            _breaks(patch, step, ERRORS["MicaError"])
            ended = await world.ended(
                await changes.create("e", world.spec("e"), CreateOptions(), actor="me")
            )
            assert ended.error is not None
            assert "e" not in world.storage.datastores.entries
            assert [stored.id for stored in world.store.config.datastores] == ["d"]
            _is_free(world, "e")
        await world.datastore("e")
        assert world.storage.for_vms.datastores() == ("d", "e")

    run(tmp_path, scenario)


def test_one_that_is_cut_off_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        await world.succeeded(await world.storage.datastore_changes.unmount("d", actor="me"))
        mounted = _drives(monkeypatch)
        entry = world.storage.datastores.entry("d")
        entry.stored = msgspec.structs.replace(entry.stored, unmounted=False)
        reached = asyncio.Event()

        async def hangs(self: Capacity, entry: object) -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Capacity, "refresh", hangs)
        task = asyncio.create_task(world.storage.attachment.attach(entry))
        await reached.wait()
        assert mounted == ["d"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert mounted == []
        _is_free(world)
        assert entry.state is not DatastoreState.AVAILABLE

    run(tmp_path, scenario)
