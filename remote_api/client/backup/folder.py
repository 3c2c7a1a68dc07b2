"""A chain of backups in a folder, each with the changed parts of every disk, verified by SHA-256.

<folder>/0001.json            one point: what it holds, and of which disks
<folder>/0001-vm.json         the VM as it was: spec, firmware variables, TPM state
<folder>/0001-disk0.raw       the parts of a disk, each at its own offset (a sparse file)
<folder>/0002.json …          what changed since the point before
<folder>/.lock                held by the one command that changes the folder

A point exists once its NNNN.json does, which is written last and removed first; files that no point
names are left by an interrupted command, and the next one removes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from remote_api.client.backup.extents import Run, clipped, overlay
from remote_api.client.errors import ConflictError, MisuseError
from vmkernel.model import BackupExtent, VolumeFormat

__all__ = ["BackupFolder", "Chain", "DiskPart", "Point", "VmPart", "read_part"]

_SCHEMA = 2
_PART_BYTES = 1 << 20
_POINT_FILE = re.compile(r"[0-9]{4}\.json\Z")
_DATA_FILE = re.compile(r"[0-9]{4}-[A-Za-z0-9._-]+\Z")
_MODE = 0o600
"""The disks and the saved VM hold the guest's secrets."""


class DiskPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a point for one disk."""

    key: str
    volume: str
    size_bytes: int
    format: VolumeFormat
    file: str
    extents: tuple[BackupExtent, ...]
    sha256: str
    """Of the extents that aren't zero, in order."""

    @property
    def data_bytes(self) -> int:
        """How much of the disk is in the file."""
        return sum(extent.length for extent in self.extents if not extent.zero)


class VmPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a point for the VM, besides its disks."""

    file: str
    sha256: str


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backup of a chain."""

    schema: int = _SCHEMA
    vm: str
    created_at: str
    checkpoint: str
    since: str | None
    """The checkpoint of the point before; None if this one is whole."""
    quiet: bool
    disks: tuple[DiskPart, ...]
    saved: VmPart | None = None
    """None in points of schema 1, which hold the disks alone."""

    @property
    def data_bytes(self) -> int:
        """How much of all disks it holds."""
        return sum(disk.data_bytes for disk in self.disks)

    @property
    def files(self) -> frozenset[str]:
        """The names of its data files."""
        saved = () if self.saved is None else (self.saved.file,)
        return frozenset((*(disk.file for disk in self.disks), *saved))


Chain = dict[int, Point]
"""Points by number, ascending; each is whole or follows the one before."""


class BackupFolder:
    """One VM's chain of points."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    def points(self) -> Chain:
        """The chain. Raises ConflictError if it can't be read or has a gap."""
        found: Chain = {}
        before: str | None = None
        try:
            names = sorted(p.name for p in self.path.iterdir() if _POINT_FILE.match(p.name))
            for name in names:
                point = msgspec.json.decode((self.path / name).read_bytes(), type=Point)
                if point.schema not in (1, _SCHEMA):
                    raise ConflictError(
                        f"{self.path / name} was written by a newer version of mica;"
                        " update this one"
                    )
                if not all(_DATA_FILE.match(file) for file in point.files):
                    raise ConflictError(f"{self.path / name} refers to a file outside the folder")
                if point.since not in (None, before):
                    raise ConflictError(f"{self.path / name} does not follow the point before it")
                before = point.checkpoint
                found[int(name[:4])] = point
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise ConflictError(f"can't read the backup in {self.path}: {error}") from error
        return found

    def chosen(self, number: int | None) -> tuple[int, Chain]:
        """A point (the last by default), and the chain from the whole point that it needs."""
        chain = self.points()
        if not chain:
            raise ConflictError(f"{self.path} contains no backup")
        if number is None:
            number = max(chain)
        if number not in chain:
            raise ConflictError(
                f"{self.path} has no point {number}; it has {', '.join(map(str, chain))}"
            )
        first = max(n for n, point in chain.items() if n <= number and point.since is None)
        return number, {n: point for n, point in chain.items() if first <= n <= number}

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only command that changes the folder; ConflictError while another is."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("ab")
        except OSError as error:
            raise ConflictError(f"{self.path} can't be written: {error.strerror}") from error
        with file:
            if not _locked(file):
                raise ConflictError(
                    f"{self.path} is in use by another command; wait for it to finish"
                )
            self._sweep()
            yield

    def _sweep(self) -> None:
        named = {file for point in self.points().values() for file in point.files}
        for path in self.path.iterdir():
            if path.name not in named and _DATA_FILE.match(path.name):
                path.unlink()

    # --- writing ------------------------------------------------------------------------------

    def create(self, name: str) -> BinaryIO:
        fd = os.open(
            self.path / name,
            os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0),
            _MODE,
        )
        return os.fdopen(fd, "w+b")

    def keep_vm(self, number: int, document: bytes) -> VmPart:
        """Write the VM of a point; durable on return."""
        name = f"{number:04}-vm.json"
        with self.create(name) as file:
            file.write(document)
            _flush(file)
        return VmPart(file=name, sha256=hashlib.sha256(document).hexdigest())

    def keep(self, number: int, point: Point) -> None:
        """Write a point, which then exists; durable on return."""
        name = f"{number:04}.json"
        with self.create(f".{name}.new") as file:
            file.write(msgspec.json.format(msgspec.json.encode(point), indent=1))
            _flush(file)
        (self.path / f".{name}.new").replace(self.path / name)
        self._flush_names()

    def drop(self, number: int, point: Point, kept: frozenset[str] = frozenset()) -> None:
        """Remove a point, then those of its files that others don't need."""
        (self.path / f"{number:04}.json").unlink(missing_ok=True)
        self._flush_names()
        for name in point.files - kept:
            (self.path / name).unlink(missing_ok=True)

    def _flush_names(self) -> None:
        if os.name == "nt":  # directories can't be opened there
            return
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # --- reading ------------------------------------------------------------------------------

    def saved_vm(self, point: Point) -> bytes:
        """The VM of a point, verified."""
        if point.saved is None:
            raise ConflictError(
                "this point was created by an older version of mica and contains only the disks:"
                " restore them with --prefix, and create the VM with `mica vm create`"
            )
        try:
            data = (self.path / point.saved.file).read_bytes()
        except OSError as error:
            raise ConflictError(f"{point.saved.file} can't be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != point.saved.sha256:
            raise ConflictError(f"{point.saved.file} is damaged: its SHA-256 differs")
        return data

    def disk(self, chain: Chain, key: str) -> tuple[list[Run], list[Path]]:
        """The content of a disk at the chain's last point: runs, and the files of their sources."""
        runs: list[Run] = []
        files: list[Path] = []
        size = 0
        for point in chain.values():
            part = next((disk for disk in point.disks if disk.key == key), None)
            if part is None:
                continue
            newer = [Run(e.offset, e.length, e.zero, len(files)) for e in part.extents]
            runs = newer if point.since is None else overlay(runs, newer)
            files.append(self.path / part.file)
            size = part.size_bytes
        return clipped(runs, size), files

    def verify(self) -> Chain:
        """Read every file of the chain; ConflictError names the first that is damaged."""
        chain = self.points()
        if not chain:
            raise ConflictError(f"{self.path} contains no backup")
        self.verify_points(chain)
        return chain

    def verify_points(self, chain: Chain) -> None:
        """Read every file of some points; ConflictError names the first that is damaged."""
        for point in chain.values():
            if point.saved is not None:
                self.saved_vm(point)
            for disk in point.disks:
                self._verify_disk(disk)

    def _verify_disk(self, disk: DiskPart) -> None:
        digest = hashlib.sha256()
        try:
            with (self.path / disk.file).open("rb") as file:
                for extent in disk.extents:
                    if not extent.zero:
                        for part in read_part(file, extent.offset, extent.length):
                            digest.update(part)
        except OSError as error:
            raise ConflictError(f"{disk.file} can't be read: {error.strerror}") from error
        if digest.hexdigest() != disk.sha256:
            raise ConflictError(f"{disk.file} is damaged: its SHA-256 differs")

    # --- pruning ------------------------------------------------------------------------------

    def prune(self, keep: int, *, on_step: Callable[[str], None] = lambda _: None) -> list[int]:
        """Keep the last `keep` points; the numbers of those removed.

        The oldest point that stays becomes a full one, merged from it and those before it. It is
        complete before anything is removed, so an interrupted command loses no point.
        """
        if keep < 1:
            raise MisuseError("keep at least one point")
        with self.changing():
            chain = self.points()
            numbers = list(chain)
            old, stay = numbers[:-keep], numbers[-keep:]
            if not old:
                return []
            if chain[stay[0]].since is not None:
                on_step(f"point {stay[0]}: merging what the points before it hold")
                self._make_whole(stay[0])
            kept = frozenset(
                f for n, point in self.points().items() if n in stay for f in point.files
            )
            for number in reversed(old):
                self.drop(number, chain[number], kept)
            self._sweep()
            return old

    def _make_whole(self, number: int) -> None:
        _, chain = self.chosen(number)
        self.verify_points(chain)
        point = chain[number]
        disks = []
        for disk in point.disks:
            runs, sources = self.disk(chain, disk.key)
            name = f"{number:04}-{disk.key}.whole.raw"
            digest = hashlib.sha256()
            with contextlib.ExitStack() as opened, self.create(name) as target:
                files = [opened.enter_context(path.open("rb")) for path in sources]
                for run in runs:
                    if not run.zero:
                        target.seek(run.offset)
                        for part in read_part(files[run.source], run.offset, run.length):
                            target.write(part)
                            digest.update(part)
                target.truncate(disk.size_bytes)
                _flush(target)
            extents = tuple(
                BackupExtent(offset=r.offset, length=r.length, zero=r.zero) for r in runs
            )
            disks.append(
                msgspec.structs.replace(disk, file=name, extents=extents, sha256=digest.hexdigest())
            )
        self.keep(number, msgspec.structs.replace(point, since=None, disks=tuple(disks)))


def read_part(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """Bytes of a data file; ConflictError if it ends before."""
    file.seek(offset)
    while length:
        part = file.read(min(_PART_BYTES, length))
        if not part:
            raise ConflictError(f"{file.name} is damaged: it is too short")
        length -= len(part)
        yield part


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _locked(file: BinaryIO) -> bool:
    """Lock a file until it is closed; True if the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows: two commands at once are not kept apart there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
