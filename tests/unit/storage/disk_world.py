"""Made-up disks for the drivers: what lies on them is a dictionary, mdadm and mkfs pretend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmkernel.host.block import BlockDisk, BlockPartition, BlockTree
from vmkernel.host.errors import CommandError
from vmkernel.host.md import Mdadm, MdArray, MdMember, Superblock
from vmkernel.host.runner import Runner
from vmkernel.storage.drivers.base import DatastoreDriver
from vmkernel.storage.drivers.disk_selection import DiskChoice, Found
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.drivers.registry import appliance_drivers, hosted_drivers

__all__ = ["MadeUpChoice", "MadeUpMdadm", "all_drivers", "array", "disk"]

GIB = 1 << 30


def disk(disk_id: str, *, partitioned: bool = False, size_bytes: int = GIB) -> BlockDisk:
    """A disk whose kernel name is its id in lower case."""
    name = disk_id.lower()
    part = BlockPartition(
        name=f"{name}1",
        number=1,
        size_bytes=size_bytes - (2 << 20),
        start_bytes=1 << 20,
        device_number="8:1",
        holders=(),
    )
    return BlockDisk(
        name=name,
        id=disk_id,
        model=None,
        serial=disk_id,
        size_bytes=size_bytes,
        sector_bytes=512,
        transport="sata",
        rotational=False,
        removable=False,
        read_only=False,
        device_number="8:0",
        holders=(),
        partitions=(part,) if partitioned else (),
    )


class _Tree(BlockTree):
    def __init__(self) -> None:
        super().__init__()
        self.all: dict[str, BlockDisk] = {}

    def disks(self) -> tuple[BlockDisk, ...]:
        """All of them."""
        return tuple(self.all.values())


class MadeUpChoice(DiskChoice):
    """`typed` says which partition type each disk bears; `in_use` which are taken."""

    def __init__(self, *disks: BlockDisk) -> None:
        self.made_up = _Tree()
        self.made_up.all = {item.id: item for item in disks}
        super().__init__(Runner(), self.made_up, lambda: "stick")
        self.typed: dict[str, str] = {}
        self.in_use: dict[str, str] = {}
        self.calls: list[str] = []

    def user_of(self, disk: BlockDisk) -> str | None:
        """Who has it."""
        return self.in_use.get(disk.id)

    def partition(self, disk: BlockDisk, type_guid: str) -> Found | None:
        """The partition, where it bears that type."""
        if self.typed.get(disk.id) != type_guid or not disk.partitions:
            return None
        return Found(disk, disk.partitions[0], f"guid-{disk.id}")

    async def blank(self, disk: BlockDisk) -> bool:
        """True without partitions."""
        return not disk.partitions

    async def contents(self, disk: BlockDisk) -> str:
        """Something."""
        return f"things on {disk.name}"

    async def clear(self, disk: BlockDisk) -> None:
        """Take all away."""
        self.calls.append(f"clear {disk.id}")
        self.typed.pop(disk.id, None)

    async def partition_whole(self, disk: BlockDisk, type_guid: str, name: str) -> Found:
        """One partition."""
        self.calls.append(f"partition {disk.id} {name}")
        made = globals()["disk"](disk.id, partitioned=True, size_bytes=disk.size_bytes)
        self.made_up.all[disk.id] = made
        self.typed[disk.id] = type_guid
        return Found(made, made.partitions[0], f"guid-{disk.id}")


class MadeUpMdadm(Mdadm):
    """Keeps marks by partition and notes what was asked; `failing` names what fails."""

    def __init__(self) -> None:
        super().__init__(Runner())
        self.marks: dict[str, Superblock] = {}
        self.running: dict[str, Superblock] = {}
        self.failing: set[str] = set()
        self.calls: list[str] = []

    async def superblock(self, member: Path) -> Superblock | None:
        """The mark."""
        return self.marks.get(member.name)

    async def identity(self, device: Path) -> Superblock | None:
        """The array's."""
        return self.running.get(device.name)

    async def create(
        self, device: Path, *, name: str, level: str, disks: Sequence[Path], spares: Sequence[Path]
    ) -> None:
        """Mark all members."""
        self._note(f"create raid{level} {_names(disks)} {_names(spares)}".rstrip(), "create")
        mark = Superblock(uuid="uuid-new", name=name, level=level, devices=len(disks))
        self.running[device.name] = mark
        for member in (*disks, *spares):
            self.marks[member.name] = mark

    async def assemble(
        self, device: Path, uuid: str, members: Sequence[Path], *, degraded: bool
    ) -> None:
        """Note it."""
        self._note(f"assemble {uuid} {_names(members)} {degraded}", "assemble")
        self.running[device.name] = self.marks[members[0].name]

    async def stop(self, device: Path) -> None:
        """Note it."""
        self._note(f"stop {device.name}", "stop")
        self.running.pop(device.name, None)

    async def forget(self, member: Path) -> None:
        """Take the mark away."""
        self._note(f"forget {member.name}", "forget")
        self.marks.pop(member.name, None)

    async def add(self, device: Path, member: Path) -> None:
        """Note it."""
        self._note(f"add {device.name} {member.name}", "add")

    async def replace(self, device: Path, old: Path, new: Path) -> None:
        """Note it."""
        self._note(f"replace {device.name} {old.name} {new.name}", "replace")

    async def drop(self, device: Path, member: Path | str) -> None:
        """Note it."""
        self._note(f"drop {device.name} {Path(member).name}", "drop")

    def _note(self, text: str, kind: str) -> None:
        self.calls.append(text)
        if kind in self.failing:
            raise CommandError(f"madm: {kind} failed.", replay="", returncode=1, output="")


def array(name: str, *members: MdMember, **changes: object) -> MdArray:
    """A clean mirror of two, but for the changes."""
    fields: dict[str, object] = {
        "name": name,
        "level": "raid1",
        "array_state": "clean",
        "raid_disks": 2,
        "degraded": 0,
        "sync_action": "idle",
        "sync_done": None,
        "sync_total": None,
        "sync_kib_per_s": None,
        "members": members,
        "size_bytes": GIB,
        **changes,
    }
    return MdArray(**fields)  # type: ignore[arg-type]


def all_drivers(*disks: BlockDisk, root: Path = Path("/m")) -> tuple[DatastoreDriver, ...]:
    """Those of both modes."""
    choice = MadeUpChoice(*disks)
    return (*hosted_drivers(), *appliance_drivers(choice, Mounting(choice.runner, root)))


def _names(paths: Sequence[Path]) -> str:
    return ",".join(path.name for path in paths)
