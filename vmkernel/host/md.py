"""Linux md arrays: made and changed by `mdadm`, observed in sysfs (the kernel's md.rst).

Only arrays with metadata 1.2 whose names begin with `NAME_PREFIX` are Mica's; no others are
assembled. udev starts nothing here, so an array runs only if the vmkernel has assembled it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.runner import Runner
from vmkernel.host.sysfs import SYS, link_name, read_int, read_text, subfolders
from vmkernel.model.volumes import SECTOR_BYTES

__all__ = ["MdArray", "MdMember", "Mdadm", "NAME_PREFIX", "Superblock", "arrays", "parse_export"]

NAME_PREFIX = "mica-"
_QUICK_S = 30.0
_SLOW_S = 120.0


@dataclass(frozen=True)
class MdMember:
    device: str
    """The kernel's name, such as `sda1`."""
    slot: int | None
    states: frozenset[str]
    """Such as `in_sync`, `faulty`, `spare`, `replacement`."""
    present: bool
    """False if the device is gone and the array has not noticed."""


@dataclass(frozen=True)
class MdArray:
    """A running (or partly assembled) array."""

    name: str
    """The kernel's name, such as `md127`."""
    level: str | None
    array_state: str
    raid_disks: int
    degraded: int
    sync_action: str
    sync_done: int | None
    """In sectors; None if nothing is in progress."""
    sync_total: int | None
    sync_kib_per_s: int | None
    members: tuple[MdMember, ...]
    size_bytes: int

    @property
    def path(self) -> Path:
        return Path("/dev") / self.name

    @property
    def running(self) -> bool:
        """True if it can be read and written."""
        return self.array_state not in ("clear", "inactive", "suspended", "broken")


@dataclass(frozen=True)
class Superblock:
    """What a member says about its array."""

    uuid: str
    name: str
    level: str
    devices: int
    events: int = 0
    """Counts the array's changes: a member with fewer was missing meanwhile, and is stale."""

    @property
    def ours(self) -> bool:
        """True if Mica made the array."""
        return self.name.rpartition(":")[2].startswith(NAME_PREFIX)


def arrays(sys: Path = SYS) -> tuple[MdArray, ...]:
    names = (name for name in subfolders(sys / "block") if (sys / "block" / name / "md").is_dir())
    return tuple(_array(sys / "block" / name, sys) for name in names)


def parse_export(text: str) -> dict[str, str]:
    """The output of `mdadm --export`: KEY=value lines."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, equals, value in pairs if equals}


class Mdadm:
    """One method per use of the program. CommandError if it fails."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def create(
        self, device: Path, *, name: str, level: str, disks: Sequence[Path], spares: Sequence[Path]
    ) -> None:
        """Make and start an array; the first synchronisation runs in the background."""
        words: list[str | Path] = ["--create", device, "--run", "--metadata=1.2"]
        words += [f"--level={level}", f"--raid-devices={len(disks)}", f"--name={name}"]
        words += ["--homehost=any", "--bitmap=internal"]
        if spares:
            words.append(f"--spare-devices={len(spares)}")
        await self._mdadm(*words, *disks, *spares, timeout_s=_SLOW_S)

    async def assemble(
        self, device: Path, uuid: str, members: Sequence[Path], *, degraded: bool
    ) -> None:
        """Start an array from these members; with `degraded`, even if fewer are present than last
        time.
        """
        words: list[str | Path] = ["--assemble", device, f"--uuid={uuid}"]
        if degraded:
            words.append("--run")
        await self._mdadm(*words, *members, timeout_s=_SLOW_S)

    async def stop(self, device: Path) -> None:
        """Stop an array; its members still belong to it."""
        await self._mdadm("--stop", device)

    async def add(self, device: Path, member: Path) -> None:
        """Add a spare; if a member is missing, its rebuild begins at once."""
        await self._mdadm("--manage", device, "--add", member)

    async def replace(self, device: Path, old: Path, new: Path) -> None:
        """Copy a working member to a spare, which then replaces it."""
        await self._mdadm("--manage", device, "--replace", old, "--with", new)

    async def drop(self, device: Path, member: Path | str) -> None:
        """Fail (if it works) and remove a member; `detached` names all that are gone."""
        await self._mdadm("--manage", device, "--fail", member, "--remove", member)

    async def take_all_space(self, device: Path) -> None:
        """Use the space that the members have gained."""
        await self._mdadm("--grow", device, "--size=max", timeout_s=_SLOW_S)

    async def forget(self, member: Path) -> None:
        """Erase the array's superblock on a device."""
        await self._mdadm("--zero-superblock", "--force", member, ok=(0, 2))

    async def superblock(self, member: Path) -> Superblock | None:
        """A device's superblock; None if it belongs to no array."""
        text = await self._mdadm("--examine", "--export", member, ok=(0, 1, 2))
        return _superblock(parse_export(text))

    async def identity(self, device: Path) -> Superblock | None:
        """The same for a running array."""
        text = await self._mdadm("--detail", "--export", device, ok=(0, 1, 2, 4))
        return _superblock(parse_export(text))

    async def _mdadm(
        self, *words: str | Path, timeout_s: float = _QUICK_S, ok: tuple[int, ...] = (0,)
    ) -> str:
        done = await self._runner.run(["mdadm", *words], timeout_s=timeout_s, ok=ok)
        return done.stdout.decode(errors="replace")


def _superblock(values: dict[str, str]) -> Superblock | None:
    uuid = values.get("MD_UUID")
    if not uuid or not values.get("MD_DEVICES", "").isdigit():
        return None
    return Superblock(
        uuid=uuid,
        name=values.get("MD_NAME", ""),
        level=values.get("MD_LEVEL", ""),
        devices=int(values["MD_DEVICES"]),
        events=int(values["MD_EVENTS"]) if values.get("MD_EVENTS", "").isdigit() else 0,
    )


def _array(place: Path, sys: Path) -> MdArray:
    md = place / "md"
    done, total = _progress(read_text(md / "sync_completed"))
    members = []
    for entry in subfolders(md):
        if entry.startswith("dev-"):
            with contextlib.suppress(OSError):
                members.append(_member(md / entry, sys))
    return MdArray(
        name=place.name,
        level=read_text(md / "level") or None,
        array_state=read_text(md / "array_state") or "clear",
        raid_disks=_first_number(read_text(md / "raid_disks")),
        degraded=read_int(md / "degraded") or 0,
        sync_action=read_text(md / "sync_action") or "idle",
        sync_done=done,
        sync_total=total,
        sync_kib_per_s=_first_number(read_text(md / "sync_speed")) or None,
        members=tuple(members),
        size_bytes=(read_int(place / "size") or 0) * SECTOR_BYTES,
    )


def _member(place: Path, sys: Path) -> MdMember:
    device = link_name(place / "block") or place.name.removeprefix("dev-")
    slot = read_text(place / "slot") or ""
    states = frozenset(part.strip() for part in (read_text(place / "state") or "").split(","))
    return MdMember(
        device=device,
        slot=int(slot) if slot.isdigit() else None,
        states=states,
        present=(sys / "class/block" / device).exists(),
    )


def _progress(text: str | None) -> tuple[int | None, int | None]:
    """`sync_completed`: `done / total` in sectors, or `none`, or `delayed`."""
    done, slash, total = (text or "").partition("/")
    if not slash or not done.strip().isdigit() or not total.strip().isdigit():
        return None, None
    return int(done), int(total)


def _first_number(text: str | None) -> int:
    word = (text or "").split(" ")[0]
    return int(word) if word.isdigit() else 0
