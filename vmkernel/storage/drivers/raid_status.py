"""What an array's state in sysfs means for a datastore: its status, findings and events; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from vmkernel.host.block import BlockDisk
from vmkernel.host.md import MdArray, MdMember
from vmkernel.model import (
    DatastoreMember,
    DatastoreSpec,
    DatastoreStatus,
    Finding,
    MemberState,
    RaidLevel,
    RaidState,
    RaidStatus,
    Severity,
)
from vmkernel.storage.drivers.base import News, Observation

__all__ = ["RaidObservation", "node_disks", "observe_array"]

_LEVELS = {level.value: level for level in RaidLevel}
_COMPARING = ("resync", "check", "repair", "reshape")
_LOST = (MemberState.MISSING, MemberState.FAULTY)


@dataclass(frozen=True, kw_only=True)
class RaidObservation(Observation):
    """A running array."""

    raid: RaidStatus

    def complete(self, status: DatastoreStatus) -> DatastoreStatus:
        return msgspec.structs.replace(super().complete(status), raid=self.raid)

    def findings(self, datastore_id: str) -> Iterator[Finding]:
        """Fewer disks than it was made with."""
        if not self.raid.missing_disks:
            return
        rebuilding = self.raid.state is RaidState.REBUILDING
        lost = [member.disk for member in self.members if member.state in _LOST]
        names = f" ({', '.join(lost)})" if lost else ""
        yield Finding(
            code="datastore-degraded",
            severity=Severity.WARNING if rebuilding else Severity.ERROR,
            message=f"The array of datastore {datastore_id} lacks {self.raid.missing_disks} of its"
            f" disks{names}: " + ("a rebuild is under way." if rebuilding else "replace them."),
            subject=f"datastore/{datastore_id}",
        )

    def news(self, datastore_id: str, before: Observation) -> Iterator[News]:
        """A changed state; at the first observation only missing disks."""
        if isinstance(before, RaidObservation):
            if before.raid.state is self.raid.state:
                return
        elif not self.raid.missing_disks:
            return
        text = f"The array of datastore {datastore_id} is {self.raid.state}"
        missing = self.raid.missing_disks
        text += f", {missing} of its disks missing." if missing else "."
        data = {"state": self.raid.state.value, "missing_disks": missing}
        yield News("datastore.raid", text, data)


def node_disks(disks: Sequence[BlockDisk]) -> dict[str, str]:
    """The id of the disk that each of the kernel's names belongs to, partitions included."""
    names = {disk.name: disk.id for disk in disks}
    for disk in disks:
        names.update({part.name: disk.id for part in disk.partitions})
    return names


def observe_array(
    array: MdArray, spec: DatastoreSpec, disks: Sequence[BlockDisk]
) -> RaidObservation:
    """The members by disk, and the state of the redundancy."""
    nodes = node_disks(disks)
    members = []
    seen = set()
    for member in sorted(array.members, key=_order):
        disk = nodes.get(member.device)
        if disk is None or not member.present:
            continue
        seen.add(disk)
        members.append(
            DatastoreMember(
                disk=disk, device=f"/dev/{member.device}", state=_member_state(member, array)
            )
        )
    for disk in (*spec.disks, *spec.spares):
        if disk not in seen:
            members.append(DatastoreMember(disk=disk, state=MemberState.MISSING))
    return RaidObservation(members=tuple(members), raid=_status(array, members))


def _status(array: MdArray, members: Sequence[DatastoreMember]) -> RaidStatus:
    whole = sum(member.state is MemberState.ACTIVE for member in members)
    missing = max(array.degraded, array.raid_disks - whole, 0)
    percent = remaining = None
    if array.sync_done is not None and array.sync_total:
        percent = round(100 * array.sync_done / array.sync_total, 1)
        if array.sync_kib_per_s:
            left_kib = (array.sync_total - array.sync_done) // 2
            remaining = left_kib // array.sync_kib_per_s
    if array.sync_action == "recover":
        state = RaidState.REBUILDING
    elif missing:
        state = RaidState.DEGRADED
    elif array.sync_action in _COMPARING:
        state = RaidState.CHECKING
    else:
        state = RaidState.CLEAN
    return RaidStatus(
        level=_LEVELS.get(array.level or ""),
        state=state,
        missing_disks=missing,
        progress_percent=percent,
        remaining_s=remaining,
    )


def _member_state(member: MdMember, array: MdArray) -> MemberState:
    if "faulty" in member.states:
        return MemberState.FAULTY
    if "in_sync" in member.states:
        return MemberState.ACTIVE
    if member.slot is not None and array.sync_action == "recover":
        return MemberState.REBUILDING
    return MemberState.SPARE


def _order(member: MdMember) -> tuple[int, str]:
    return (999 if member.slot is None else member.slot, member.device)
