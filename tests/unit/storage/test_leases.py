"""One datastore, two Micas: who may have it, and who notices that it was taken."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.storage.world import World
from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.model import DatastoreState, ErrorCode, MicaError, OperationState
from vmkernel.storage.datastores import lease
from vmkernel.storage.datastores.lease import (
    SILENT_S,
    Identity,
    LeaseHeld,
    LeaseLost,
    Leases,
    TakeoverMode,
)
from vmkernel.storage.datastores.lease_keeper import LeaseKeeper
from vmkernel.storage.drivers.base import Attached, CreateOptions
from vmkernel.storage.drivers.directory import DirectoryDriver


class _Time:
    """A clock that is set by hand; no two hosts share one."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def _host(name: str, time: _Time, *, machine: str = "") -> Leases:
    return Leases(lambda: Identity(f"uuid-{name}", name, machine), clock=time, sleep=lambda _: None)


def test_what_is_free_released_or_our_own_is_ours_at_once(tmp_path: Path) -> None:
    one, other = _host("one", _Time()), _host("other", _Time(1e6))
    assert one.take(tmp_path, "u", TakeoverMode.OWN) is None
    assert _host("one", _Time()).take(tmp_path, "u", TakeoverMode.OWN) is None  # after a crash
    with pytest.raises(LeaseHeld, match="Host one ") as caught:
        other.take(tmp_path, "u", TakeoverMode.SILENT)
    assert caught.value.problem.code is ErrorCode.IN_USE
    assert "take_over" in str(caught.value)
    other.release(tmp_path, "u")  # not its own: nothing happens
    one.release(tmp_path, "u")
    assert other.take(tmp_path, "u", TakeoverMode.OWN) is None
    assert (tmp_path / "mica-lease").stat().st_size == 512


def test_a_holder_that_renews_keeps_it_and_a_silent_one_loses_it_to_who_asks(
    tmp_path: Path,
) -> None:
    one, time = _host("one", _Time(-1e9)), _Time()
    other = _host("other", time)
    one.take(tmp_path, "u", TakeoverMode.OWN)
    for step in range(20):  # for longer than SILENT_S
        time.now_s = step * 5.0
        with pytest.raises(LeaseHeld) as caught:
            other.take(tmp_path, "u", TakeoverMode.SILENT)
        assert caught.value.alive is (step > 0)
        one.renew(tmp_path, "u")
    with pytest.raises(LeaseHeld):
        other.take(tmp_path, "u", TakeoverMode.SILENT)
    time.now_s += SILENT_S
    with pytest.raises(LeaseHeld) as caught:
        other.take(tmp_path, "u", TakeoverMode.OWN)  # nobody has asked for it
    assert not caught.value.alive
    assert other.take(tmp_path, "u", TakeoverMode.SILENT) == "Host one (uuid-one)"
    with pytest.raises(LeaseLost, match="Host other"):
        one.renew(tmp_path, "u")
    assert not one.holds("u")
    one.release(tmp_path, "u")
    other.renew(tmp_path, "u")


def test_an_old_look_says_nothing_of_now(tmp_path: Path) -> None:
    one, time = _host("one", _Time()), _Time()
    other = _host("other", time)
    one.take(tmp_path, "u", TakeoverMode.OWN)
    with pytest.raises(LeaseHeld):
        other.take(tmp_path, "u", TakeoverMode.SILENT)
    one.renew(tmp_path, "u")
    time.now_s = 9000.0
    with pytest.raises(LeaseHeld) as caught:
        other.take(tmp_path, "u", TakeoverMode.SILENT)
    assert not caught.value.alive


def test_by_force_it_is_taken_from_one_at_work(tmp_path: Path) -> None:
    one, other = _host("one", _Time()), _host("other", _Time())
    one.take(tmp_path, "u", TakeoverMode.OWN)
    assert other.take(tmp_path, "u", TakeoverMode.FORCE) == "Host one (uuid-one)"
    with pytest.raises(LeaseLost):
        one.renew(tmp_path, "u")


def test_a_copied_stick_is_another_host_and_one_that_moved_waits_its_time(tmp_path: Path) -> None:
    time = _Time()
    here = _host("one", _Time(), machine="a")
    there = _host("one", time, machine="b")
    here.take(tmp_path, "u", TakeoverMode.OWN)
    with pytest.raises(LeaseHeld):
        there.take(tmp_path, "u", TakeoverMode.OWN)
    time.now_s = SILENT_S
    assert there.take(tmp_path, "u", TakeoverMode.OWN) is not None


@pytest.mark.parametrize("torn", [b"{", b"\0" * 512, b'{"schema": 9}', b"[]"])
def test_a_torn_lease_is_waited_for_and_then_free(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "mica-lease").write_bytes(torn)
    time = _Time()
    one = _host("one", time)
    with pytest.raises(LeaseHeld, match="An unknown host"):
        one.take(tmp_path, "u", TakeoverMode.OWN)
    time.now_s = SILENT_S
    one.take(tmp_path, "u", TakeoverMode.OWN)
    one.renew(tmp_path, "u")
    (tmp_path / "mica-lease").write_bytes(torn)
    with pytest.raises(OSError, match="can't be read"):
        one.renew(tmp_path, "u")


def test_without_locks_a_race_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    other = _host("other", _Time())
    one = Leases(
        lambda: Identity("uuid-one", "one"),
        clock=_Time(),
        sleep=lambda _: other._write_for_test(tmp_path),  # type: ignore[attr-defined]
    )

    def race(root: Path) -> None:
        with lease._opened(root) as file:
            other._held["u"] = other._write(file, 1)

    other._write_for_test = race  # type: ignore[attr-defined]
    with pytest.raises(LeaseHeld, match="Host other"):
        one.take(tmp_path, "u", TakeoverMode.OWN)
    assert not one.holds("u")
    other.renew(tmp_path, "u")


def _keeper(leases: Leases) -> LeaseKeeper:
    keeper = LeaseKeeper(leases, BlockingCalls())
    keeper.again_s = 0.01
    return keeper


def test_a_renewal_that_fails_is_borne_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        keeper = _keeper(_host("one", _Time()))
        attached = Attached(root=tmp_path, uuid="u")
        await keeper.take("d", attached, TakeoverMode.OWN)
        (tmp_path / "mica-lease").unlink()
        await keeper.renew("d", attached)
        monkeypatch.setattr("vmkernel.storage.datastores.lease_keeper.SILENT_S", 0.0)
        with pytest.raises(MicaError, match="could not be renewed") as caught:
            await keeper.renew("d", attached)
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        await keeper.release("d", attached)  # never raises
        await keeper.renew("d", attached)  # what was let go stays so
        assert not (tmp_path / "mica-lease").exists()

    asyncio.run(scenario())


def _two(root: Path, scenario: Callable[[World, World], object]) -> None:
    """Two hosts; the first has the datastore `d`."""

    async def main() -> None:
        one, other = World(root), World(root)
        for world in (one, other):
            world.storage.monitor._leases.again_s = 0.02
            await world.storage.start()
        await one.datastore()
        try:
            async with asyncio.timeout(30):
                await scenario(one, other)  # type: ignore[misc]
        finally:
            for world in (one, other):
                await world.operations.close()
                await world.storage.stop()

    asyncio.run(main())


async def _adopt(world: World, *, take_over: bool = False) -> str | None:
    """Adopt `d`; why that failed."""
    options = CreateOptions(adopt=True, take_over=take_over)
    ended = await world.ended(
        await world.storage.datastore_changes.create("d", world.spec("d"), options, actor="me")
    )
    return None if ended.state is OperationState.SUCCEEDED else str(ended.error)


async def _look(world: World) -> DatastoreState:
    entry = world.storage.datastores.entry("d")
    await world.storage.monitor._refresh_safely(entry)
    return entry.state


def test_two_hosts_never_have_one_datastore(tmp_path: Path) -> None:
    async def scenario(one: World, other: World) -> None:
        async def at_work() -> None:
            while True:
                await asyncio.sleep(0.01)
                assert await _look(one) is DatastoreState.AVAILABLE

        incoming = tmp_path / "d/.incoming/volume-half.qcow2"
        incoming.write_bytes(b"under way")
        work = asyncio.create_task(at_work())
        failure = await _adopt(other)
        assert failure is not None
        assert "is using it" in failure
        assert "in-use" in failure
        work.cancel()
        assert incoming.exists(), "what the other host has under way was swept"
        assert other.storage.datastores.entries == {}
        assert await _adopt(other, take_over=True) is None
        assert not incoming.exists()
        assert await _look(one) is DatastoreState.FAILED
        assert [finding.code for finding in one.storage.findings()] == ["datastore-held"]
        assert one.storage.for_vms.datastores() == ()
        assert await _look(one) is DatastoreState.FAILED  # it is not taken back by itself
        assert await _look(other) is DatastoreState.AVAILABLE
        await other.succeeded(await other.storage.datastore_changes.unmount("d", actor="me"))
        assert await _look(one) is DatastoreState.AVAILABLE
        ended = await other.ended(await other.storage.datastore_changes.mount("d", actor="me"))
        assert ended.error is not None or await _look(one) is DatastoreState.FAILED

    _two(tmp_path, scenario)


def test_disks_are_left_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(one: World, other: World) -> None:
        del other
        entry = one.storage.datastores.entry("d")
        assert entry.attached is not None
        lease = tmp_path / "d/mica-lease"
        shared = await asyncio.to_thread(lease.read_bytes)
        await _look(one)
        renewed = await asyncio.to_thread(lease.read_bytes)
        assert renewed != shared
        monkeypatch.setattr(DirectoryDriver, "shared", False)
        await _look(one)
        assert await asyncio.to_thread(lease.read_bytes) == renewed
        monkeypatch.setattr(DirectoryDriver, "shared", True)
        await _look(one)
        assert await asyncio.to_thread(lease.read_bytes) != renewed

    _two(tmp_path, scenario)


def test_a_silent_host_is_waited_for_and_a_host_that_ends_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmkernel.storage.datastores.lease.SILENT_S", 0.3)

    async def scenario(one: World, other: World) -> None:
        assert await _adopt(other) is None  # nobody renews for `one`
        assert await _look(one) is DatastoreState.FAILED
        other.users.active["d"] = ("vm",)
        await other.storage.monitor.release_idle()  # a VM runs there still
        assert await _look(one) is DatastoreState.FAILED
        other.users.active, other.users.off = {}, other.users.active
        await other.storage.monitor.release_idle()
        assert await _look(one) is DatastoreState.AVAILABLE

    _two(tmp_path, scenario)


def test_a_host_that_comes_back_has_its_datastore_at_once(tmp_path: Path) -> None:
    async def scenario(one: World, other: World) -> None:
        del other
        again = World(tmp_path, one.medium)
        await again.storage.start()
        assert again.storage.for_vms.datastores() == ("d",)
        await again.storage.stop()

    _two(tmp_path, scenario)


def test_a_datastore_that_this_host_has_is_not_touched_by_a_second_name(tmp_path: Path) -> None:
    async def scenario(one: World, other: World) -> None:
        incoming = tmp_path / "d/.incoming/volume-half.qcow2"
        incoming.write_bytes(b"under way")
        ended = await one.ended(
            await one.storage.datastore_changes.create(
                "twin", one.spec("d"), CreateOptions(), actor="me"
            )
        )
        assert ended.error is not None
        assert ended.error.code is ErrorCode.ALREADY_EXISTS
        assert incoming.exists()
        leases = Leases(lambda: Identity("x", "x"))
        with pytest.raises(LeaseHeld):
            await asyncio.to_thread(
                leases.take, tmp_path / "d", one.storage.datastores.uuid("d"), TakeoverMode.OWN
            )
        del other

    _two(tmp_path, scenario)
