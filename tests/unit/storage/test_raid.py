"""The driver of mirrored disks on made-up ones: plans, half-made arrays, what replaces what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.storage.disk_world import MadeUpChoice, MadeUpMdadm, array, disk
from vmkernel.host import disk_tools
from vmkernel.host.errors import HostError
from vmkernel.host.md import MdArray, MdMember, Superblock
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    ErrorCode,
    MemberState,
    MicaError,
    RaidLevel,
    RaidState,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers import raid
from vmkernel.storage.drivers.base import Attached, CreateOptions
from vmkernel.storage.drivers.disk_selection import MEMBER_TYPE
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.drivers.raid import RaidDriver
from vmkernel.storage.drivers.raid_status import RaidObservation, observe_array
from vmkernel.storage.errors import DatastoreMissing

OURS = Superblock(uuid="uuid-1", name="any:mica-1", level="raid1", devices=2)
OTHER = Superblock(uuid="uuid-2", name="any:mica-2", level="raid1", devices=2)
FOREIGN = Superblock(uuid="uuid-3", name="nas:data", level="raid1", devices=2)
ATTACHED = Attached(root=Path("/m"), uuid="m", device="/dev/md5", filesystem="xfs")


class Bench:
    """The driver and what it stands on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.choice = MadeUpChoice(*(disk(name) for name in names))
        self.mdadm = MadeUpMdadm()
        self.arrays: list[MdArray] = []
        self.formats = True
        self.driver = RaidDriver(self.choice, Mounting(self.choice.runner, Path("/m")), self.mdadm)
        monkeypatch.setattr(raid, "arrays", self._arrays)
        monkeypatch.setattr(raid, "mounts", lambda: ())
        monkeypatch.setattr(disk_tools, "wait_for", self._nothing)
        monkeypatch.setattr(disk_tools, "wipe", self._nothing)
        monkeypatch.setattr(disk_tools, "make_filesystem", self._format)
        monkeypatch.setattr(self.driver, "_stop_quietly", self._stop)
        monkeypatch.setattr(self.driver._mounting, "open_device", self._open)

    def member(self, name: str, mark: Superblock) -> None:
        """Let a disk bear a mark."""
        self.choice.made_up.all[name] = disk(name, partitioned=True)
        self.choice.typed[name] = MEMBER_TYPE
        self.mdadm.marks[f"{name.lower()}1"] = mark

    def _arrays(self) -> tuple[MdArray, ...]:
        running = [array(name) for name in self.mdadm.running]
        return (*self.arrays, *(item for item in running if item.name not in self._known()))

    def _known(self) -> set[str]:
        return {item.name for item in self.arrays}

    async def _stop(self, name: str) -> None:
        await self.mdadm.stop(Path("/dev") / name)

    async def _nothing(self, *_: object, **__: object) -> None:
        pass

    async def _format(self, *_: object, **__: object) -> None:
        if not self.formats:
            raise HostError("mkfs.xfs failed.")

    async def _open(self, *_: object, **__: object) -> tuple[Path, str, str]:
        return Path("/m"), "m", "xfs"


def _spec(*disks: str, spares: tuple[str, ...] = (), **more: object) -> DatastoreSpec:
    return DatastoreSpec(kind=DatastoreKind.RAID, disks=disks, spares=spares, **more)  # type: ignore[arg-type]


def _stored(*disks: str, spares: tuple[str, ...] = ()) -> StoredDatastore:
    return StoredDatastore(
        id="d",
        created_at="2026-01-01T00:00:00Z",
        spec=_spec(*disks, spares=spares),
        uuid="m",
        backing="uuid-1",
    )


def _refused(work: Callable[[], Awaitable[object]]) -> tuple[ErrorCode, str, str]:
    async def go() -> None:
        await work()

    with pytest.raises(MicaError) as caught:
        asyncio.run(go())
    problem = caught.value.problem
    return problem.code, problem.fields[0].pointer if problem.fields else "", problem.detail


@pytest.mark.parametrize(
    ("spec", "options", "code", "pointer"),
    [
        (_spec("A"), CreateOptions(), ErrorCode.INVALID, "/spec/disks"),
        (_spec("A", "A"), CreateOptions(), ErrorCode.INVALID, "/spec/disks"),
        (_spec("A", "B", spares=("B",)), CreateOptions(), ErrorCode.INVALID, "/spec/disks"),
        (_spec("A", "Z"), CreateOptions(), ErrorCode.INVALID, "/spec/disks/1"),
        (_spec("A", "USED"), CreateOptions(), ErrorCode.IN_USE, "/spec/disks/1"),
        (_spec("A", "STICK"), CreateOptions(), ErrorCode.INVALID, "/spec/disks/1"),
        (_spec("A", "B", spares=("USED",)), CreateOptions(), ErrorCode.IN_USE, "/spec/spares/0"),
        (
            _spec("A", "B", raid_level=RaidLevel.RAID10),
            CreateOptions(),
            ErrorCode.INVALID,
            "/spec/disks",
        ),
        (_spec("A", "B"), CreateOptions(adopt=True), ErrorCode.CONFLICT, "/adopt"),
        (_spec("A", "FULL"), CreateOptions(), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials"),
        (_spec("A", "FULL"), CreateOptions(("A",)), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials"),
        (
            _spec("A", "B"),
            CreateOptions(("FULL",)),
            ErrorCode.WIPE_NOT_CONFIRMED,
            "/wipe_serials/0",
        ),
        (_spec("A", "NAS"), CreateOptions(), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials"),
        (_spec("A", "MINE"), CreateOptions(("MINE",)), ErrorCode.CONFLICT, "/spec/disks"),
        (_spec("MINE", "YOURS"), CreateOptions(), ErrorCode.CONFLICT, "/spec/disks"),
    ],
)
def test_what_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    spec: DatastoreSpec,
    options: CreateOptions,
    code: ErrorCode,
    pointer: str,
) -> None:
    bench = Bench(monkeypatch, "A", "B", "USED", "STICK")
    bench.choice.in_use["USED"] = "xfs of it is mounted"
    bench.member("FULL", FOREIGN)
    bench.member("NAS", FOREIGN)
    bench.member("MINE", OURS)
    bench.member("YOURS", OTHER)
    found = _refused(lambda: bench.driver.check(spec, options))
    assert found[:2] == (code, pointer), found
    assert bench.choice.calls == []
    assert [call for call in bench.mdadm.calls if not call.startswith("stop")] == []


def test_each_disk_with_data_is_named_to_be_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "A")
    bench.member("FULL", FOREIGN)
    spec, options = _spec("A", "FULL"), CreateOptions(("FULL",))
    attached = asyncio.run(bench.driver.create("d", spec, options, lambda _: None))
    assert attached.backing == "uuid-new"
    assert bench.choice.calls == ["partition A mica-member", "partition FULL mica-member"]
    assert bench.mdadm.calls == ["create raid1 a1,full1"]


@pytest.mark.parametrize("step", ["create", "format"])
def test_a_half_made_array_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    bench = Bench(monkeypatch, "A", "B", "C")
    bench.mdadm.failing = {step}
    bench.formats = step != "format"
    spec = _spec("A", "B", spares=("C",))
    code, _, _ = _refused(lambda: bench.driver.create("d", spec, CreateOptions(), lambda _: None))
    assert code is ErrorCode.UNAVAILABLE
    assert bench.mdadm.marks == {}
    assert bench.mdadm.running == {}
    assert bench.mdadm.calls[-3:] == ["forget a1", "forget b1", "forget c1"]


def test_an_array_is_adopted_by_one_of_its_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.member("A", OURS)
    bench.member("B", OURS)
    attached = asyncio.run(
        bench.driver.create("d", _spec("A"), CreateOptions(adopt=True), lambda _: None)
    )
    assert attached.backing == "uuid-1"
    assert bench.mdadm.calls == ["assemble uuid-1 a1,b1 False"]
    assert bench.choice.calls == []


def test_what_a_crash_left_running_is_ended_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "A", "B")
    bench.mdadm.running = {"md9": OTHER, "md8": FOREIGN}
    asyncio.run(bench.driver.check(_spec("A", "B"), CreateOptions()))
    assert bench.mdadm.calls == ["stop md9"]


def test_an_incomplete_array_is_waited_for_then_started(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.member("A", OURS)
    bench.mdadm.failing = {"assemble"}
    code, _, detail = _refused(lambda: bench.driver.attach(_stored("A", "B")))
    assert (code, "1 of 2" in detail) == (ErrorCode.UNAVAILABLE, True)
    assert [call for call in bench.mdadm.calls if "True" in call] == []
    monkeypatch.setattr(raid, "_PATIENCE_S", -1.0)
    original = bench.mdadm.assemble

    async def assemble(device: Path, uuid: str, members: list[Path], *, degraded: bool) -> None:
        bench.mdadm.failing = set() if degraded else {"assemble"}
        await original(device, uuid, members, degraded=degraded)

    monkeypatch.setattr(bench.mdadm, "assemble", assemble)
    asyncio.run(bench.driver.attach(_stored("A", "B")))
    assert bench.mdadm.calls[-1] == "assemble uuid-1 a1 True"


@pytest.mark.parametrize("way", ["create", "attach"])
@pytest.mark.parametrize("step", ["start", "open", "look"])
def test_an_array_that_cannot_be_used_is_not_left_running(
    monkeypatch: pytest.MonkeyPatch, step: str, way: str
) -> None:
    bench = Bench(monkeypatch)
    for name in ("A", "B"):
        bench.member(name, OURS)

    async def fails(*_: object, **__: object) -> None:
        raise HostError("It does not work.")

    async def assembles(device: Path, uuid: str, members: list[Path], *, degraded: bool) -> None:
        bench.mdadm.running[device.name] = OURS
        await fails(uuid, members, degraded)

    if step == "start":
        monkeypatch.setattr(bench.mdadm, "assemble", assembles)
    elif step == "open":
        monkeypatch.setattr(bench.driver._mounting, "open_device", fails)
    elif way == "create":
        monkeypatch.setattr(bench.driver, "_found_spec", fails)
        monkeypatch.setattr(bench.driver._mounting, "close", bench._nothing)
    if way == "create":
        options = CreateOptions(adopt=True)
        _refused(lambda: bench.driver.create("d", _spec("A", "B"), options, lambda _: None))
    elif step != "look":
        _refused(lambda: bench.driver.attach(_stored("A", "B")))
    assert bench.mdadm.running == {}


def test_detaching_ends_an_array_that_a_failed_try_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.mdadm.running = {"md3": OURS, "md4": OTHER}
    monkeypatch.setattr(bench.driver._mounting, "close", bench._nothing)
    asyncio.run(bench.driver.detach(_stored("A", "B"), force=True))
    assert bench.mdadm.running == {"md4": OTHER}


def test_a_disk_that_was_away_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for name, events in (("A", 40), ("B", 41), ("PULLED", 17)):
        bench.member(name, replace(OURS, events=events))
    asyncio.run(bench.driver.attach(_stored("A", "B")))
    assert bench.mdadm.calls == ["assemble uuid-1 a1,b1 False"]


def test_an_array_without_disks_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with pytest.raises(DatastoreMissing):
        asyncio.run(bench.driver.attach(_stored("A", "B")))


@pytest.mark.parametrize(
    ("states", "present", "calls"),
    [
        ("in_sync", True, ["add md5 c1", "replace md5 b1 c1"]),
        ("faulty", True, ["add md5 c1", "drop md5 b1"]),
        ("in_sync", False, ["add md5 c1", "drop md5 detached"]),
        (None, False, ["add md5 c1"]),
    ],
)
def test_a_disk_is_replaced_by_what_is_safest(
    monkeypatch: pytest.MonkeyPatch, states: str | None, present: bool, calls: list[str]
) -> None:
    bench = Bench(monkeypatch, "C")
    bench.member("A", OURS)
    bench.member("B", OURS)
    good = MdMember("a1", 0, frozenset({"in_sync"}), present=True)
    members = [good]
    if states is not None:
        members.append(MdMember("b1", 1, frozenset({states}), present=present))
    bench.arrays = [array("md5", *members)]
    bench.driver._running["d"] = "md5"
    spec = asyncio.run(
        bench.driver.replace_disk(_stored("A", "B"), ATTACHED, "B", "C", CreateOptions())
    )
    assert spec.disks == ("A", "C")
    assert bench.mdadm.calls == calls


def test_replacing_again_after_a_crash_only_notes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for name in ("A", "C"):
        bench.member(name, OURS)
    bench.arrays = [
        array(
            "md5",
            MdMember("a1", 0, frozenset({"in_sync"}), present=True),
            MdMember("c1", 1, frozenset({"spare"}), present=True),
        )
    ]
    bench.driver._running["d"] = "md5"
    spec = asyncio.run(
        bench.driver.replace_disk(_stored("A", "B"), ATTACHED, "B", "C", CreateOptions())
    )
    assert spec.disks == ("A", "C")
    assert bench.mdadm.calls == []


@pytest.mark.parametrize(
    ("old", "new", "pointer"),
    [("Z", "C", "/old"), ("B", "A", "/new"), ("B", "USED", "/new"), ("B", "SMALL", "/new")],
)
def test_replacements_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, pointer: str
) -> None:
    bench = Bench(monkeypatch, "C", "USED")
    bench.choice.made_up.all["SMALL"] = disk("SMALL", size_bytes=600 << 20)
    bench.choice.in_use["USED"] = "somebody has it"
    for name in ("A", "B"):
        bench.member(name, OURS)
    bench.arrays = [array("md5", MdMember("a1", 0, frozenset({"in_sync"}), present=True))]
    bench.driver._running["d"] = "md5"
    found = _refused(
        lambda: bench.driver.replace_disk(_stored("A", "B"), ATTACHED, old, new, CreateOptions())
    )
    assert found[1] == pointer
    assert bench.mdadm.calls == []


def test_what_is_gone_or_replaced_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for name in ("A", "OLD"):
        bench.member(name, OURS)
    bench.arrays = [
        array(
            "md5",
            MdMember("a1", 0, frozenset({"in_sync"}), present=True),
            MdMember("old1", None, frozenset({"faulty"}), present=True),
            MdMember("pulled1", 1, frozenset({"in_sync"}), present=False),
        )
    ]
    bench.driver._running["d"] = "md5"
    look = asyncio.run(bench.driver.observe(_stored("A", "PULLED")))
    assert bench.mdadm.calls == ["drop md5 old1", "forget old1", "drop md5 detached"]
    assert {m.disk: m.state for m in look.members} == {
        "A": MemberState.ACTIVE,
        "OLD": MemberState.FAULTY,
        "PULLED": MemberState.MISSING,
    }
    assert isinstance(look, RaidObservation)
    assert (look.raid.state, look.raid.missing_disks) == (RaidState.DEGRADED, 1)


@pytest.mark.parametrize(
    ("changes", "spare_slot", "state", "member", "percent", "remaining"),
    [
        ({}, None, RaidState.DEGRADED, MemberState.SPARE, None, None),
        (
            {
                "sync_action": "recover",
                "degraded": 1,
                "sync_done": 1000,
                "sync_total": 4000,
                "sync_kib_per_s": 100,
            },
            1,
            RaidState.REBUILDING,
            MemberState.REBUILDING,
            25.0,
            15,
        ),
        ({"sync_action": "recover", "degraded": 1}, 1, RaidState.REBUILDING, None, None, None),
    ],
)
def test_looks(
    changes: dict[str, object],
    spare_slot: int | None,
    state: RaidState,
    member: MemberState | None,
    percent: float | None,
    remaining: int | None,
) -> None:
    disks = [disk("A", partitioned=True), disk("B", partitioned=True)]
    found = observe_array(
        array(
            "md5",
            MdMember("a1", 0, frozenset({"in_sync"}), present=True),
            MdMember("b1", spare_slot, frozenset({"spare"}), present=True),
            **changes,
        ),
        _spec("A", "B"),
        disks,
    )
    assert found.raid is not None
    assert found.raid.state is state
    assert (found.raid.progress_percent, found.raid.remaining_s) == (percent, remaining)
    if member is not None:
        assert found.members[1].state is member


def test_a_resync_of_a_whole_mirror_is_no_loss() -> None:
    disks = [disk("A", partitioned=True), disk("B", partitioned=True)]
    both = [MdMember(f"{n}1", i, frozenset({"in_sync"}), present=True) for i, n in enumerate("ab")]
    found = observe_array(array("md5", *both, sync_action="resync"), _spec("A", "B"), disks)
    assert found.raid is not None
    assert (found.raid.state, found.raid.missing_disks) == (RaidState.CHECKING, 0)
