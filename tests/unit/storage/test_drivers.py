"""What the rest of storage knows of a kind of datastore is what its driver says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.unit.storage.disk_world import all_drivers
from vmkernel.model import (
    COMMON_FIELDS,
    KIND_FIELDS,
    DatastoreKind,
    DatastoreMember,
    DatastoreSpec,
    DatastoreState,
    DatastoreStatus,
    MemberState,
    RaidLevel,
    RaidState,
    RaidStatus,
    Severity,
    kind_with,
)
from vmkernel.storage.drivers.base import Observation, as_found
from vmkernel.storage.drivers.disk_selection import DATASTORE_TYPE, MEMBER_TYPE
from vmkernel.storage.drivers.raid_status import RaidObservation

DRIVERS = {driver.kind: driver for driver in all_drivers()}
ROOT = Path(__file__).parents[3]
STORAGE = ROOT / "vmkernel/storage"


def test_every_kind_has_one_driver_and_every_field_an_owner() -> None:
    assert set(DRIVERS) == set(DatastoreKind) == set(KIND_FIELDS)
    assert len(DRIVERS) == len(all_drivers())
    fields = set(DatastoreSpec.__struct_fields__)
    owned = frozenset().union(*KIND_FIELDS.values())
    assert owned | COMMON_FIELDS == fields
    assert not owned & COMMON_FIELDS


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"disk"}, DatastoreKind.LOCAL),
        ({"disk", "filesystem"}, DatastoreKind.LOCAL),
        ({"disks"}, DatastoreKind.LVM),
        ({"disks", "raid_level"}, DatastoreKind.RAID),
        ({"disks", "spares"}, DatastoreKind.RAID),
        ({"nfs"}, DatastoreKind.NFS),
        ({"path"}, DatastoreKind.DIRECTORY),
        ({"nfs", "disks"}, None),
        ({"disk", "raid_level"}, None),
    ],
)
def test_the_kind_follows_from_the_fields(fields: set[str], kind: DatastoreKind | None) -> None:
    assert kind_with(fields) is kind


def test_no_module_but_the_drivers_names_a_kind() -> None:
    """In storage, and in the client: what a kind takes is in the model."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in (STORAGE, ROOT / "remote_api/client")
        for path in folder.rglob("*.py")
        if path.parent.name != "drivers"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "DatastoreKind"
    ]
    assert found == []


@pytest.mark.parametrize(
    ("partition_type", "filesystem", "kind"),
    [
        (DATASTORE_TYPE, "xfs", DatastoreKind.LOCAL),
        (DATASTORE_TYPE, "ext4", DatastoreKind.LOCAL),
        (DATASTORE_TYPE, None, None),
        (DATASTORE_TYPE, "linux_raid_member", None),
        (MEMBER_TYPE, "linux_raid_member", DatastoreKind.RAID),
        (MEMBER_TYPE, "LVM2_member", DatastoreKind.LVM),
        (MEMBER_TYPE, "xfs", None),
        (MEMBER_TYPE, None, None),
    ],
)
def test_a_partition_is_recognised_by_one_driver_at_most(
    partition_type: str, filesystem: str | None, kind: DatastoreKind | None
) -> None:
    found = [d.kind for d in DRIVERS.values() if d.recognises(partition_type, filesystem)]
    assert found == ([] if kind is None else [kind])


@pytest.mark.parametrize(
    ("kind", "disks"),
    [
        (DatastoreKind.LOCAL, ("A",)),
        (DatastoreKind.RAID, ("B", "C", "S")),
        (DatastoreKind.LVM, ("B", "C")),
        (DatastoreKind.NFS, ()),
        (DatastoreKind.DIRECTORY, ()),
    ],
)
def test_a_driver_names_the_disks_of_its_spec(kind: DatastoreKind, disks: tuple[str, ...]) -> None:
    spec = DatastoreSpec(kind=kind, disk="A", disks=("B", "C"), spares=("S",))
    assert DRIVERS[kind].disks_of(spec) == disks


@pytest.mark.parametrize("kind", DatastoreKind)
def test_only_what_a_network_is_asked_for_is_remote_and_what_hosts_share_is_shared(
    kind: DatastoreKind,
) -> None:
    driver = DRIVERS[kind]
    assert driver.remote is (kind is DatastoreKind.NFS)
    assert driver.shared is (kind in {DatastoreKind.NFS, DatastoreKind.DIRECTORY})


def test_what_is_found_replaces_what_was_asked_for() -> None:
    spec = DatastoreSpec(kind=DatastoreKind.RAID, disks=("A", "B"), spares=("S",))
    assert as_found(spec) is spec
    assert as_found(spec, filesystem="ext4").filesystem.value == "ext4"
    assert as_found(spec, filesystem="ntfs") is spec
    assert as_found(spec, disks=("S", "B", "A")) is spec
    found = as_found(spec, disks=("B", "C", "S"))
    assert (found.disks, found.spares) == (("B", "C"), ("S",))
    found = as_found(spec, disks=("A", "B"))
    assert (found.disks, found.spares) == (("A", "B"), ())


def _array(
    state: RaidState, missing: int = 0, *members: tuple[str, MemberState]
) -> RaidObservation:
    return RaidObservation(
        members=tuple(DatastoreMember(disk=disk, state=it) for disk, it in members),
        raid=RaidStatus(level=RaidLevel.RAID1, state=state, missing_disks=missing),
    )


def test_an_array_speaks_up_when_its_state_changes() -> None:
    clean = _array(RaidState.CLEAN)
    degraded = _array(RaidState.DEGRADED, 1, ("A", MemberState.ACTIVE), ("B", MemberState.FAULTY))
    rebuilding = _array(RaidState.REBUILDING, 1)
    assert not list(clean.news("d", Observation()))
    assert not list(clean.news("d", clean))
    for before in (clean, Observation(), rebuilding):
        (news,) = degraded.news("d", before)
        assert news.kind == "datastore.raid"
        assert news.data == {"state": "degraded", "missing_disks": 1}
        assert news.text == "The array of datastore d is degraded, 1 of its disks missing."
    assert not list(degraded.news("d", degraded))
    (news,) = clean.news("d", rebuilding)
    assert news.text == "The array of datastore d is clean."


def test_an_array_that_lacks_disks_is_a_finding_until_it_is_whole() -> None:
    degraded = _array(RaidState.DEGRADED, 1, ("A", MemberState.ACTIVE), ("B", MemberState.FAULTY))
    (finding,) = degraded.findings("d")
    assert (finding.code, finding.severity) == ("datastore-degraded", Severity.ERROR)
    assert "(B)" in finding.message
    (finding,) = _array(RaidState.REBUILDING, 1).findings("d")
    assert finding.severity is Severity.WARNING
    assert not list(_array(RaidState.CLEAN).findings("d"))


def test_an_observation_completes_the_status() -> None:
    blank = DatastoreStatus(state=DatastoreState.AVAILABLE)
    assert Observation().complete(blank) == blank
    whole = _array(RaidState.CLEAN, 0, ("A", MemberState.ACTIVE)).complete(blank)
    assert whole.raid is not None
    assert whole.raid.state is RaidState.CLEAN
    assert [member.disk for member in whole.members] == ["A"]
