"""The driver of joined disks on made-up ones: plans, groups half made, disks that are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.unit.storage.disk_world import MadeUpChoice, disk
from vmkernel.host import disk_tools
from vmkernel.host.errors import CommandError, HostError
from vmkernel.host.lvm import Lvm, PhysicalVolume
from vmkernel.host.runner import Runner
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    ErrorCode,
    Filesystem,
    MemberState,
    MicaError,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers import lvm
from vmkernel.storage.drivers.base import Attached, CreateOptions
from vmkernel.storage.drivers.disk_selection import MEMBER_TYPE, Found
from vmkernel.storage.drivers.lvm import LvmDriver
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.errors import DatastoreMissing

NO_CONSENT = CreateOptions()


class MadeUpLvm(Lvm):
    """Keeps groups as lists of devices; like lvm, it sees only the devices that it is given."""

    def __init__(self, nodes: Path) -> None:
        super().__init__(Runner())
        self.nodes = nodes
        self.groups: dict[str, list[Path]] = {}
        self.failing: set[str] = set()
        self.calls: list[str] = []

    async def create(self, group: str, devices: Sequence[Path]) -> None:
        self._note("create", *devices)
        self.groups[group] = list(devices)
        self._node(group).touch()

    async def activate(self, group: str, devices: Sequence[Path]) -> None:
        self._note("activate", *devices)
        if not set(self.groups[group]) <= set(devices):
            raise CommandError("lvm: a disk is missing.", replay="", returncode=5, output="")
        self._node(group).touch()

    async def deactivate(self, group: str, devices: Sequence[Path]) -> None:
        self._note("deactivate", *devices)
        self._node(group).unlink(missing_ok=True)

    async def extend(self, group: str, devices: Sequence[Path], new: Path) -> None:
        self._note("extend", *devices, new)
        self.groups[group].append(new)

    async def take_all_space(self, group: str, devices: Sequence[Path]) -> None:  # noqa: ARG002
        self._note("space", *devices)

    async def physical_volumes(self, devices: Sequence[Path]) -> tuple[PhysicalVolume, ...]:
        found = []
        for group, members in self.groups.items():
            if not set(members) & set(devices):
                continue
            for device in members:
                seen = device if device in devices else None
                found.append(PhysicalVolume(seen, f"pv-{device.name}", group, f"vg-{group}"))
        return tuple(found)

    def _node(self, group: str) -> Path:
        return self.nodes / group

    def _note(self, kind: str, *devices: Path) -> None:
        self.calls.append(" ".join((kind, *(device.name for device in devices))))
        if kind in self.failing:
            raise CommandError(f"lvm: {kind} failed.", replay="", returncode=5, output="")


class Bench:
    """The driver and what it stands on; `away` names disks that were pulled."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.choice = MadeUpChoice(*(disk(name) for name in names))
        self.lvm = MadeUpLvm(tmp_path)
        self.formatted: list[str] = []
        self.wiped: list[str] = []
        self.format_error: Exception | None = None
        self.open_error: Exception | None = None
        self.grown: list[str] = []
        self.driver = LvmDriver(self.choice, Mounting(self.choice.runner, tmp_path), self.lvm)
        monkeypatch.setattr(lvm, "volume_node", lambda group: tmp_path / group)
        monkeypatch.setattr(lvm, "_there", lambda found: found.disk.id in self.choice.made_up.all)
        monkeypatch.setattr(lvm, "grow_filesystem", lambda *_: self.grown.append("filesystem"))
        monkeypatch.setattr(disk_tools, "wait_for", self._wait)
        monkeypatch.setattr(disk_tools, "wipe", self._wipe)
        monkeypatch.setattr(disk_tools, "make_filesystem", self._format)
        monkeypatch.setattr(self.choice, "grow_partition", self._grow)
        monkeypatch.setattr(self.driver._mounting, "open_device", self._open)
        monkeypatch.setattr(self.driver._mounting, "close", self._close)

    def group(self, name: str, *disks: str) -> None:
        """A group of an earlier life on these disks."""
        for item in disks:
            self.choice.made_up.all[item] = disk(item, partitioned=True)
            self.choice.typed[item] = MEMBER_TYPE
        self.lvm.groups[name] = [Path("/dev") / f"{item.lower()}1" for item in disks]

    def create(self, *disks: str, options: CreateOptions = NO_CONSENT) -> Attached:
        return asyncio.run(self.driver.create("d", _spec(*disks), options, lambda _: None))

    async def _wait(self, condition: Callable[[], bool], *, what: str) -> None:
        if not condition():
            raise HostError(f"{what} did not come.")

    async def _wipe(self, _runner: Runner, node: Path) -> None:
        self.wiped.append(node.name)

    async def _format(self, *_: object, **__: object) -> None:
        self.formatted.append("xfs")
        if self.format_error is not None:
            raise self.format_error

    async def _grow(self, found: Found) -> None:
        self.grown.append(found.partition.name)

    async def _open(self, *_: object, **__: object) -> tuple[Path, str, str]:
        if self.open_error is not None:
            raise self.open_error
        return Path("/m"), "m", "ext4"

    async def _close(self, *_: object, **__: object) -> None:
        pass


def _spec(*disks: str) -> DatastoreSpec:
    return DatastoreSpec(kind=DatastoreKind.LVM, disks=disks)


def _stored(group: str, *disks: str) -> StoredDatastore:
    return StoredDatastore(
        id="d", created_at="2026-01-01T00:00:00Z", spec=_spec(*disks), uuid="m", backing=group
    )


def _refused(work: Callable[[], Awaitable[object]]) -> tuple[ErrorCode, str]:
    async def go() -> None:
        await work()

    with pytest.raises(MicaError) as caught:
        asyncio.run(go())
    problem = caught.value.problem
    return problem.code, problem.fields[0].pointer if problem.fields else ""


@pytest.mark.parametrize(
    ("disks", "options", "code", "pointer"),
    [
        ((), NO_CONSENT, ErrorCode.INVALID, "/spec/disks"),
        (("A", "A"), NO_CONSENT, ErrorCode.INVALID, "/spec/disks"),
        (("A", "NONE"), NO_CONSENT, ErrorCode.INVALID, "/spec/disks/1"),
        (("USED",), NO_CONSENT, ErrorCode.IN_USE, "/spec/disks/0"),
        (("A", "MINE"), CreateOptions(("MINE",)), ErrorCode.CONFLICT, "/spec/disks"),
        (("MINE", "OTHER"), NO_CONSENT, ErrorCode.CONFLICT, "/spec/disks"),
        (("A", "B"), CreateOptions(adopt=True), ErrorCode.CONFLICT, "/adopt"),
        (("A", "FULL"), NO_CONSENT, ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials"),
        (("A", "B"), CreateOptions(("FULL",)), ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials/0"),
        (("NAS",), NO_CONSENT, ErrorCode.WIPE_NOT_CONFIRMED, "/wipe_serials"),
    ],
)
def test_what_is_refused_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disks: tuple[str, ...],
    options: CreateOptions,
    code: ErrorCode,
    pointer: str,
) -> None:
    bench = Bench(tmp_path, monkeypatch, "A", "B", "USED")
    bench.choice.in_use["USED"] = "it is mounted"
    bench.choice.made_up.all["FULL"] = disk("FULL", partitioned=True)
    bench.group("mica-1", "MINE")
    bench.group("mica-2", "OTHER")
    bench.group("nas-data", "NAS")
    assert _refused(lambda: bench.driver.check(_spec(*disks), options)) == (code, pointer)
    assert _refused(lambda: bench.driver.create("d", _spec(*disks), options, lambda _: None)) == (
        code,
        pointer,
    )
    assert bench.lvm.calls == []
    assert bench.choice.calls == []
    assert bench.formatted == []


def test_blank_disks_become_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, "A", "B")
    attached = bench.create("A", "B")
    ((group, devices),) = bench.lvm.groups.items()
    assert group.startswith("mica-")
    assert [device.name for device in devices] == ["a1", "b1"]
    assert (attached.backing, attached.device) == (group, str(tmp_path / group))
    assert attached.spec is not None
    assert (attached.spec.disks, attached.spec.filesystem) == (("A", "B"), Filesystem.EXT4)
    stored = _stored(group, "A", "B")
    assert asyncio.run(bench.driver.present(stored))
    assert [Path(node).name for node in bench.driver.device_nodes(stored)] == ["a1", "b1"]


@pytest.mark.parametrize("step", ["create", "format"])
def test_a_group_half_made_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bench = Bench(tmp_path, monkeypatch, "A", "B")
    if step == "create":
        bench.lvm.failing = {"create"}
    else:
        bench.format_error = HostError("mkfs.xfs failed.")
    code, _ = _refused(
        lambda: bench.driver.create("d", _spec("A", "B"), NO_CONSENT, lambda _: None)
    )
    assert code is not ErrorCode.INVALID
    assert "deactivate a1 b1" in bench.lvm.calls
    assert bench.wiped == ["a1", "a", "b1", "b"]
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_cannot_be_mounted_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, "A")
    bench.open_error = HostError("It can't be mounted.")
    _refused(lambda: bench.driver.create("d", _spec("A"), NO_CONSENT, lambda _: None))
    assert bench.lvm.calls[-1] == "deactivate a1"
    assert bench.wiped == [], "the data stay"


@pytest.mark.parametrize("step", ["activate", "node", "open"])
@pytest.mark.parametrize("way", ["create", "attach"])
def test_a_volume_that_cannot_be_mounted_is_not_left_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, way: str
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.group("mica-1", "A", "B")
    stored = _stored("mica-1", "A", "B")
    if step == "activate":
        bench.lvm.failing = {"activate"}
    elif step == "open":
        bench.open_error = HostError("It can't be mounted.")
    else:

        async def never(*_: object, **__: object) -> None:
            raise HostError("The volume did not come.")

        monkeypatch.setattr(disk_tools, "wait_for", never)
    if way == "attach":
        _refused(lambda: bench.driver.attach(stored))
    else:
        options = CreateOptions(adopt=True)
        _refused(lambda: bench.driver.create("d", stored.spec, options, lambda _: None))
    assert bench.lvm.calls[-1] == "deactivate a1 b1"
    assert list(tmp_path.iterdir()) == []


def test_a_group_is_adopted_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.group("mica-1", "A", "B")
    attached = bench.create("A", options=CreateOptions(adopt=True))
    assert attached.backing == "mica-1"
    assert attached.spec is not None
    assert attached.spec.disks == ("A", "B"), "the other disk of the group is one of it, too"
    assert bench.formatted == []


def test_it_waits_for_all_its_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.group("mica-1", "A", "B")
    stored = _stored("mica-1", "A", "B")
    gone = bench.choice.made_up.all.pop("B")
    with pytest.raises(DatastoreMissing, match="1 of 2 are there"):
        asyncio.run(bench.driver.attach(stored))
    assert not [call for call in bench.lvm.calls if call.startswith("activate")]
    bench.choice.made_up.all["B"] = gone
    attached = asyncio.run(bench.driver.attach(stored))
    assert attached.spec == stored.spec
    assert asyncio.run(bench.driver.present(stored))
    look = asyncio.run(bench.driver.observe(stored))
    assert [member.state for member in look.members] == [MemberState.ACTIVE] * 2
    del bench.choice.made_up.all["B"]
    assert not asyncio.run(bench.driver.present(stored))
    look = asyncio.run(bench.driver.observe(stored))
    assert {member.disk: member.state for member in look.members} == {
        "A": MemberState.ACTIVE,
        "B": MemberState.MISSING,
    }


def test_a_disk_that_was_added_before_a_crash_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.group("mica-1", "A", "NEW")
    stored = msgspec.structs.replace(
        _stored("mica-1"), spec=msgspec.structs.replace(_spec("A"), warning_percent=70)
    )
    attached = asyncio.run(bench.driver.attach(stored))
    assert attached.spec is not None
    assert (attached.spec.disks, attached.spec.warning_percent) == (("A", "NEW"), 70)


def test_a_disk_is_added_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, "A", "B")
    attached = bench.create("A")
    stored = _stored(attached.backing or "", "A")
    spec = asyncio.run(bench.driver.add_disk(stored, attached, "B", NO_CONSENT))
    assert spec.disks == ("A", "B")
    assert bench.lvm.calls[-1] == "extend a1 b1"
    assert bench.grown == ["filesystem"]
    for name in ("A", "NONE"):
        work = partial(bench.driver.add_disk, stored, attached, name, NO_CONSENT)
        assert _refused(work) == (ErrorCode.INVALID, "/disk")


def test_it_grows_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, "A", "B")
    attached = bench.create("A", "B")
    stages: list[str] = []
    stored = _stored(attached.backing or "", "A", "B")
    asyncio.run(bench.driver.grow(stored, attached, stages.append))
    assert stages == ["partition", "volume", "filesystem"]
    assert bench.grown == ["a1", "b1", "filesystem"]
    assert bench.lvm.calls[-1] == "space a1 b1"


def test_it_has_no_redundancy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, "A", "B")
    attached = bench.create("A")
    stored = _stored(attached.backing or "", "A")
    code, _ = _refused(lambda: bench.driver.replace_disk(stored, attached, "A", "B", NO_CONSENT))
    assert code is ErrorCode.UNSUPPORTED


def test_strays_are_released_and_datastores_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, "A")
    attached = bench.create("A")
    assert attached.backing is not None
    bench.group("mica-stray", "S")
    bench.group("nas-data", "N")
    for name in ("mica-stray", "nas-data"):
        (tmp_path / name).touch()
    asyncio.run(bench.driver.release_strays())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [attached.backing, "nas-data"]
    )
    asyncio.run(bench.driver.detach(_stored(attached.backing, "A")))
    assert [path.name for path in tmp_path.iterdir()] == ["nas-data"]
    assert not asyncio.run(bench.driver.present(_stored(attached.backing, "A")))


def test_what_cannot_be_let_go_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, "A")
    attached = bench.create("A")
    bench.lvm.failing = {"deactivate"}
    asyncio.run(bench.driver.detach(_stored(attached.backing or "", "A")))
    assert bench.lvm.calls[-1] == "deactivate a1"
