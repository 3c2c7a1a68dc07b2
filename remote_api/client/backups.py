"""Backups in a folder: points of a chain, each with the changed parts of every disk, proven by
SHA-256.

<folder>/0001.json            one point: what it holds, and of which disks
<folder>/0001-disk0.raw       the parts of a disk, each at its own offset (a sparse file)
<folder>/0002.json …          what changed since the point before
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from remote_api.client.errors import MisuseError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.schema import BackupBody, BackupExtent, VolumeFormat, VolumeSpec

__all__ = ["BackupFolder", "DiskPart", "OnStep", "Point"]

OnStep = Callable[[str], None]

_PART_BYTES = 1 << 20
_REQUEST_BYTES = 64 << 20


class DiskPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a point holds of one disk."""

    key: str
    volume: str
    size_bytes: int
    format: VolumeFormat
    file: str
    extents: tuple[BackupExtent, ...]
    sha256: str
    """Of the extents that aren't zero, in order."""


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backup of a chain."""

    schema: int = 1
    vm: str
    created_at: str
    checkpoint: str
    since: str | None
    quiet: bool
    disks: tuple[DiskPart, ...]


class BackupFolder:
    """A chain of points; the first is whole, each other holds what changed since the one before,
    or is whole again where the host had lost what changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def points(self) -> list[Point]:
        """The chain. Raises MisuseError where it can't be read or has a gap."""
        found: list[Point] = []
        try:
            for path in sorted(self._folder.glob("[0-9][0-9][0-9][0-9].json")):
                point = msgspec.json.decode(path.read_bytes(), type=Point)
                if point.since not in (None, found[-1].checkpoint if found else None):
                    raise MisuseError(f"{path} does not go on from the point before it")
                found.append(point)
        except (OSError, msgspec.DecodeError) as error:
            raise MisuseError(f"{self._folder} holds no readable backup: {error}") from error
        return found

    def create(self, mica: Mica, vm_id: str, *, on_step: OnStep = lambda _: None) -> Point:
        """Add a point: what changed since the last, or a whole one where there is none, or where
        the host can't tell what changed (the reason is told)."""
        self._folder.mkdir(parents=True, exist_ok=True)
        chain = self.points()
        since = chain[-1].checkpoint if chain else None
        if chain and chain[-1].vm != vm_id:
            raise MisuseError(f"{self._folder} holds backups of VM {chain[-1].vm}")
        number = len(chain) + 1
        checkpoint = f"b{number}-{os.urandom(4).hex()}"
        try:
            backup = mica.begin_backup(vm_id, BackupBody(checkpoint=checkpoint, since=since))
        except RefusedError as error:
            if not any(e.pointer == "/since" for e in error.problem.errors):
                raise
            on_step(f"a whole backup: {error.problem.detail}")
            since = None
            backup = mica.begin_backup(vm_id, BackupBody(checkpoint=checkpoint))
        made: list[Path] = []
        try:
            disks = []
            for disk in backup.disks:
                name = f"{number:04}-{disk.key}.raw"
                made.append(self._folder / name)
                on_step(f"{disk.key} ({disk.volume})")
                extents = tuple(mica.backup_extents(backup, disk.key))
                with made[-1].open("xb") as file:
                    digest = hashlib.sha256()
                    for extent in extents:
                        if not extent.zero:
                            file.seek(extent.offset)
                            _copy(
                                mica.read_backup(backup, disk.key, extent.offset, extent.length),
                                file,
                                digest.update,
                            )
                    file.truncate(disk.size_bytes)
                    file.flush()
                    os.fsync(file.fileno())
                disks.append(
                    DiskPart(
                        key=disk.key,
                        volume=disk.volume,
                        size_bytes=disk.size_bytes,
                        format=mica.volume(disk.volume).spec.format,
                        file=name,
                        extents=extents,
                        sha256=digest.hexdigest(),
                    )
                )
            point = Point(
                vm=vm_id,
                created_at=backup.created_at,
                checkpoint=checkpoint,
                since=since,
                quiet=backup.quiet,
                disks=tuple(disks),
            )
            self._keep(number, point)
        except BaseException:
            for path in made:
                path.unlink(missing_ok=True)
            with contextlib.suppress(RefusedError):  # it may have ended by itself
                mica.end_backup(backup)
            with contextlib.suppress(RefusedError):
                mica.delete_checkpoint(vm_id, checkpoint)
            raise
        mica.end_backup(backup)
        if since is not None:
            mica.delete_checkpoint(vm_id, since)
        return point

    def verify(self) -> list[Point]:
        """Prove every file of the chain; MisuseError names the first that is damaged."""
        chain = self.points()
        if not chain:
            raise MisuseError(f"{self._folder} holds no backup")
        for point in chain:
            for disk in point.disks:
                for _ in self._proven(disk):
                    pass
        return chain

    def restore(
        self,
        mica: Mica,
        *,
        datastore: str,
        prefix: str,
        on_step: OnStep = lambda _: None,
    ) -> list[str]:
        """Make a volume `<prefix>-<key>` of each disk, as it was at the last point."""
        chain = self.verify()
        whole = max(number for number, point in enumerate(chain) if point.since is None)
        chain = chain[whole:]
        made = []
        for disk in chain[-1].disks:
            volume = f"{prefix}-{disk.key}"
            on_step(volume)
            mica.wait(
                mica.create_volume(
                    volume,
                    VolumeSpec(
                        datastore=datastore,
                        size_bytes=disk.size_bytes,
                        format=VolumeFormat.RAW,
                    ),
                )
            )
            made.append(volume)
            for number, point in enumerate(chain):
                part = next((d for d in point.disks if d.key == disk.key), None)
                if part is not None:
                    self._write(mica, volume, part, blank=number == 0)
            if disk.format is not VolumeFormat.RAW:
                mica.wait(mica.move_volume(volume, volume_format=disk.format))
        return made

    def _write(self, mica: Mica, volume: str, disk: DiskPart, *, blank: bool) -> None:
        """Parts of a disk; zeros aren't written into a blank volume."""
        with (self._folder / disk.file).open("rb") as file:
            for extent in disk.extents:
                if extent.zero and blank:
                    continue
                for at in range(0, extent.length, _REQUEST_BYTES):
                    length = min(_REQUEST_BYTES, extent.length - at)
                    offset = extent.offset + at
                    parts = _zeros(length) if extent.zero else _read(file, offset, length)
                    mica.write_volume(volume, offset, length, parts)

    def _proven(self, disk: DiskPart) -> Iterator[None]:
        digest = hashlib.sha256()
        try:
            with (self._folder / disk.file).open("rb") as file:
                for extent in disk.extents:
                    if not extent.zero:
                        for part in _read(file, extent.offset, extent.length):
                            digest.update(part)
                            yield
        except OSError as error:
            raise MisuseError(f"{disk.file} can't be read: {error}") from error
        if digest.hexdigest() != disk.sha256:
            raise MisuseError(f"{disk.file} is damaged: its SHA-256 is not what was written down")

    def _keep(self, number: int, point: Point) -> None:
        path = self._folder / f"{number:04}.json"
        temp = path.with_suffix(".new")
        with temp.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(point), indent=1))
            file.flush()
            os.fsync(file.fileno())
        temp.rename(path)


def _copy(parts: Iterator[bytes], file: BinaryIO, update: Callable[[bytes], None]) -> None:
    for part in parts:
        file.write(part)
        update(part)


def _read(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    file.seek(offset)
    while length:
        part = file.read(min(_PART_BYTES, length))
        if not part:
            raise MisuseError(f"{file.name} is too short")
        length -= len(part)
        yield part


def _zeros(length: int) -> Iterator[bytes]:
    block = bytes(_PART_BYTES)
    while length:
        yield block[: min(length, _PART_BYTES)]
        length -= min(length, _PART_BYTES)
