"""qemu-img: make, convert, resize, check. Formats are always given, never detected.

It reads data from outside, so it runs confined (`vmkernel.workers`), not as root, and only a few at
once: it has its own uid, limits on memory and output size, no network, and only the files it was
given. Each file is opened here and verified on the descriptor that qemu-img then gets, so that no
other file can take its place. A conversion that makes no progress is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.errors import CommandError, from_os_error
from vmkernel.host.files import open_regular, status
from vmkernel.host.runner import Completed
from vmkernel.host.worker import Confinement, Workers
from vmkernel.model import ErrorCode, MicaError

__all__ = [
    "CheckReport",
    "Layer",
    "QemuImg",
    "Verify",
    "qcow2_tables_bytes",
]

_QUICK_S = 120.0
_MEASURE_S = 900.0
_CHECK_S = 4 * 3600.0
_CONVERT_S = 24 * 3600.0
_SILENCE_S = 900.0
"""It reports each percent; one percent of a large volume can take a slow disk this long."""
_MEMORY_BYTES = 2 << 30
"""Of address space: threads' stacks, libraries and caches; some 100 MiB are really used."""
_SLACK_BYTES = 16 << 20
"""The additional space of a qcow2's tables while they are moved to grow."""
_CLUSTER_BYTES = 1 << 16
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


Layer = tuple[Path, str]
"""A file in a backing chain, and its format."""

Verify = Callable[[int, str, bool], int]
"""Checks an open file against its format; the last argument allows damaged tables. MicaError if it
names other files or doesn't have that format; else the bytes that all of its tables may take."""


def qcow2_tables_bytes(size_bytes: int, cluster_bytes: int = _CLUSTER_BYTES) -> int:
    """What the tables of a qcow2 of that virtual size may take: per cluster, an entry of 8 bytes in
    an L2 table, at most 8 of reference count, and one bit in each of a few bitmaps.
    """
    return -(-size_bytes // cluster_bytes) * 18


@dataclass(frozen=True)
class CheckReport:
    """The remaining faults of each kind, and what was repaired."""

    corruptions: int
    leaks: int
    corruptions_fixed: int
    leaks_fixed: int


class _Files:
    """The open files of one run, by their paths."""

    def __init__(self) -> None:
        self.fds: dict[Path, int] = {}
        self.read: list[int] = []
        self.write: list[int] = []
        self.tables_bytes = 0

    def whole(self, *layers: Layer) -> str:
        """A disk with exactly these files, from the top layer down, ignoring their headers; needs
        no format option.
        """
        node: dict[str, Any] | None = None
        for path, image_format in reversed(layers):
            below = {"backing": node} if image_format == "qcow2" else {}
            node = {"driver": image_format, **below, "file": self._node(path)}
        return f"json:{msgspec.json.encode(node).decode()}"

    def replayed(self, path: Path, image_format: str, overlay: Path) -> str:
        """A disk that consists of `overlay` over `path`."""
        below = {"driver": "raw", "file": self._node(path)}
        file = {"driver": "qcow2", "backing": below, "file": self._node(overlay)}
        return f"json:{msgspec.json.encode({'driver': image_format, 'file': file}).decode()}"

    def _node(self, path: Path) -> dict[str, str]:
        return {"driver": "file", "filename": _opened_name(self.fds[path])}

    def name(self, path: Path) -> str:
        """A file name that qemu-img can't mistake for a protocol (`nbd:…`) or an option."""
        return f"file:{_opened_name(self.fds[path])}"

    def largest(self) -> int:
        """The length of the longest writable file."""
        return max((os.fstat(fd).st_size for fd in self.write), default=0)

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)


class QemuImg:
    """One method per sub-command. If we are root, it runs as the owner of its files: a VM's user
    (`vm_uids`), or else `uid`, which then becomes the owner.
    """

    def __init__(
        self,
        workers: Workers,
        verify: Verify,
        *,
        program: str = "qemu-img",
        uid: int | None = None,
        vm_uids: range = range(0),
    ) -> None:
        self._workers = workers
        self._verify = verify
        self._program = program
        self._uid = uid
        self._vm_uids = vm_uids

    async def create_qcow2(self, path: Path, size_bytes: int, *, thick: bool = False) -> None:
        """An empty qcow2, with all blocks allocated if `thick`; `path` exists and
        is overwritten.
        """
        tables = qcow2_tables_bytes(size_bytes)
        async with self._opened(write=[(path, "raw")]) as files:
            await self._run(
                files,
                "made",
                *("create", "-q", "-f", "qcow2", "-o"),
                "compat=1.1,preallocation=falloc" if thick else "compat=1.1",
                files.name(path),
                str(size_bytes),
                file_bytes=tables + _SLACK_BYTES + (size_bytes if thick else 0),
                long=thick,
            )

    async def create_linked(
        self, path: Path, size_bytes: int, *, backing_name: str, backing_format: str
    ) -> None:
        """An empty qcow2 with the other file, which isn't opened, as backing; `path` exists and is
        overwritten.
        """
        async with self._opened(write=[(path, "raw")]) as files:
            await self._run(
                files,
                "made",
                *("create", "-q", "-u", "-f", "qcow2", "-o", "compat=1.1"),
                *("-b", backing_name, "-F", backing_format),
                files.name(path),
                str(size_bytes),
                file_bytes=qcow2_tables_bytes(size_bytes) + _SLACK_BYTES,
            )

    async def measure(
        self,
        source: Path,
        source_format: str,
        *,
        chain: Sequence[Layer] = (),
        snapshot: str | None = None,
        overlay: Path | None = None,
    ) -> int:
        """The largest size in bytes of a qcow2 with the disk's present content: clusters count as
        often as the tables point at them, and compressed ones count unpacked. `overlay` is from
        `replay`.
        """
        async with self._opened(read=_layers(source, source_format, chain, overlay)) as files:
            done = await self._run(
                files,
                "copied",
                *("measure", "--output=json", "-O", "qcow2"),
                *_at_snapshot(snapshot),
                *_source(files, source, source_format, chain, overlay),
                timeout_s=_MEASURE_S,
            )
        return _decoded(done, _Measure).required

    async def convert(
        self,
        source: Path,
        source_format: str,
        target: Path,
        target_format: str,
        *,
        file_bytes: int,
        thick: bool = False,
        on_fraction: Callable[[float], None],
        compress: bool = False,
        chain: Sequence[Layer] = (),
        snapshot: str | None = None,
        overlay: Path | None = None,
    ) -> None:
        """Copy a disk into an existing file, reporting the fraction done.

        `target` becomes no larger than `file_bytes`; `chain` are the files below `source`, from the
        upper one; `overlay` is from `replay`. With `snapshot`, what the snapshot of that name
        inside the qcow2 `source` holds: this alone may be read while a QEMU writes to the file.
        """
        tail = bytearray()

        def listen(data: bytes) -> None:
            tail.extend(data)
            if found := _PERCENT.findall(bytes(tail)):
                on_fraction(float(found[-1]) / 100)
            del tail[:-32]

        layers = _layers(source, source_format, chain, overlay)
        async with self._opened(read=layers, write=[(target, "raw")]) as files:
            await self._run(
                files,
                "copied",
                *("convert", "-p"),
                *(["-c"] if compress else []),
                *_at_snapshot(snapshot),
                *("-O", target_format),
                *(["-o", "preallocation=falloc"] if thick else []),
                *_source(files, source, source_format, chain, overlay),
                files.name(target),
                file_bytes=file_bytes,
                timeout_s=_CONVERT_S,
                silence_s=_SILENCE_S,
                on_stdout=listen,
                long=True,
            )

    async def replay(
        self, source: Path, source_format: str, overlay: Path, *, file_bytes: int
    ) -> int:
        """Apply a disk's log, as QEMU does when it opens the disk for writing; returns the disk's
        virtual size. Its writes go into the empty file `overlay`, which becomes no larger than
        `file_bytes`, so that `source` stays as it came.
        """
        size = (await asyncio.to_thread(status, source)).st_size
        await self.create_linked(overlay, size, backing_name="source", backing_format="raw")
        read, write = [(source, "raw")], [(overlay, "qcow2")]
        async with self._opened(read=read, write=write) as files:
            disk = files.replayed(source, source_format, overlay)
            await self._run(
                files,
                "completed from its log",
                *("check", "-q", "-r", "all", disk),
                file_bytes=file_bytes,
                timeout_s=_MEASURE_S,
            )
        async with self._opened(read=[*read, *write]) as files:
            disk = files.replayed(source, source_format, overlay)
            words = ("info", "--output=json", disk)
            return _decoded(await self._run(files, "read", *words), _Info).virtual_size

    async def resize(
        self,
        path: Path,
        image_format: str,
        size_bytes: int,
        *,
        shrink: bool,
        thick: bool = False,
    ) -> None:
        """Change the size that the guest sees; nothing may have the file open."""
        flags = ["--shrink"] if shrink else []
        if thick and not shrink:
            flags.append("--preallocation=falloc")
        async with self._opened(write=[(path, image_format)]) as files:
            most = max(files.largest(), size_bytes if thick or image_format == "raw" else 0)
            await self._run(
                files,
                "resized",
                *("resize", "-q", *flags),
                files.whole((path, image_format)),
                str(size_bytes),
                file_bytes=most + qcow2_tables_bytes(size_bytes) + _SLACK_BYTES,
                long=thick,
            )

    async def snapshot(self, action: str, tag: str, path: Path) -> None:
        """Make (`-c`), apply (`-a`) or delete (`-d`) a snapshot inside a qcow2 that nothing has
        open."""
        async with self._opened(write=[(path, "qcow2")]) as files:
            words = ("snapshot", "-q", action, tag, files.whole((path, "qcow2")))
            await self._run(files, "changed", *words)

    async def snapshots(self, path: Path) -> frozenset[str]:
        """The names of the snapshots inside a qcow2, which a QEMU may have open."""
        found = await self._info(path)
        return frozenset(item.name for item in found.snapshots)

    async def bitmaps(self, path: Path) -> dict[str, bool]:
        """The names of the dirty bitmaps inside a qcow2; True if one is complete, which it isn't if
        its QEMU ended without saving it.
        """
        found = await self._info(path)
        return {item.name: "in-use" not in item.flags for item in found.specific.data.bitmaps}

    async def remove_bitmap(self, name: str, path: Path) -> None:
        """Remove a dirty bitmap inside a qcow2 that nothing has open."""
        async with self._opened(write=[(path, "qcow2")]) as files:
            words = ("bitmap", "--remove", files.whole((path, "qcow2")), name)
            await self._run(files, "changed", *words)

    async def _info(self, path: Path) -> _Info:
        async with self._opened(read=[(path, "qcow2")]) as files:
            words = ("info", "--output=json", "-U", files.whole((path, "qcow2")))
            return _decoded(await self._run(files, "read", *words), _Info)

    async def check(self, path: Path, image_format: str, *, repair: str | None) -> CheckReport:
        """Check a qcow2's tables; `repair` is `leaks` or `all`."""
        layer = [(path, image_format)]
        given = {"read": layer} if repair is None else {"write": layer}
        async with self._opened(**given, damaged=True) as files:
            done = await self._run(
                files,
                "checked",
                *("check", "--output=json", *([] if repair is None else ["-r", repair])),
                files.whole((path, image_format)),
                timeout_s=_CHECK_S,
                ok=(0, 2, 3),
                long=True,
            )
        found = _decoded(done, _Check)
        return CheckReport(
            found.corruptions, found.leaks, found.corruptions_fixed, found.leaks_fixed
        )

    async def data_end(self, path: Path, image_format: str) -> int:
        """The end in its file of a disk's last piece, in bytes, ignoring anything beyond the disk's
        own end: a shorter file has lost data, which qemu would read as zeros. Compressed pieces
        don't count: a truncated one can't be unpacked.
        """
        async with self._opened(read=[(path, image_format)]) as files:
            reach = _Reach()
            await self._run(
                files,
                "mapped",
                *("map", "--output=json"),
                files.whole((path, image_format)),
                timeout_s=_CHECK_S,
                on_stdout=reach.feed,
                long=True,
            )
        return reach.bytes

    # --- running ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _opened(
        self, *, read: Sequence[Layer] = (), write: Sequence[Layer] = (), damaged: bool = False
    ) -> AsyncIterator[_Files]:
        """Open and verify the files of a run; writable ones have no second name."""
        files = _Files()
        try:
            await asyncio.to_thread(self._open, files, read, write, damaged)
            yield files
        finally:
            files.close()

    def _open(
        self, files: _Files, read: Sequence[Layer], write: Sequence[Layer], damaged: bool
    ) -> None:
        for layers, writing, fds in ((read, False, files.read), (write, True, files.write)):
            for path, image_format in layers:
                try:
                    fd = open_regular(path, os.O_RDONLY, single=writing)
                except OSError as error:
                    raise from_os_error(error, f"The file {path.name} can't be used") from error
                files.fds[path] = fd
                fds.append(fd)
                files.tables_bytes += self._verify(fd, image_format, damaged)

    async def _run(
        self,
        files: _Files,
        done: str,
        *words: str,
        file_bytes: int | None = None,
        timeout_s: float = _QUICK_S,
        silence_s: float | None = None,
        ok: tuple[int, ...] = (0,),
        on_stdout: Callable[[bytes], None] | None = None,
        long: bool = False,
    ) -> Completed:
        """Run it on open files; failures are reported as "can't be `done`"."""
        if file_bytes is None:
            grown = files.largest() + files.tables_bytes + _SLACK_BYTES
            file_bytes = grown if files.write else 0
        confinement = Confinement(
            memory_bytes=_MEMORY_BYTES,
            file_bytes=file_bytes,
            read=tuple(Path(_opened_name(fd)) for fd in files.read),
            write=tuple(Path(_opened_name(fd)) for fd in files.write),
        )
        program = self._workers.program(self._program)
        async with self._workers.places.taken(long=long):
            user = await asyncio.to_thread(self._user, files)
            try:
                return await self._workers.confined_runner.run(
                    [*self._workers.prefix(confinement), program, *words],
                    name=self._program,
                    timeout_s=timeout_s,
                    silence_s=silence_s,
                    ok=ok,
                    on_stdout=on_stdout,
                    pass_fds=tuple(files.fds.values()),
                    user=user,
                    cgroup=self._workers.cgroup,
                )
            except CommandError as error:
                raise _told(error, done) from error

    def _user(self, files: _Files) -> int | None:
        """The uid to run as, which can then read and write all files; None: our own."""
        if self._uid is None:
            return None
        private = [fd for fd in files.read if not os.fstat(fd).st_mode & 0o004]
        owners = [os.fstat(fd).st_uid for fd in (*private, *files.write)]
        user = next((uid for uid in owners if uid in self._vm_uids), self._uid)
        for fd in (*private, *files.write):
            found = os.fstat(fd)
            if found.st_uid == user:
                continue
            if found.st_uid in self._vm_uids and fd in private:
                os.fchmod(fd, found.st_mode & 0o777 | 0o044)  # as a volume that others stand on
            else:
                os.fchown(fd, user, user)
        return user


def _opened_name(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _at_snapshot(snapshot: str | None) -> list[str]:
    return [] if snapshot is None else ["-U", "-l", f"snapshot.name={snapshot}"]


def _layers(
    path: Path, image_format: str, chain: Sequence[Layer], overlay: Path | None
) -> list[Layer]:
    if overlay is not None:
        return [(overlay, "qcow2"), (path, "raw")]
    return [(path, image_format), *chain]


def _source(
    files: _Files, path: Path, image_format: str, chain: Sequence[Layer], overlay: Path | None
) -> tuple[str, ...]:
    if overlay is not None:
        return (files.replayed(path, image_format, overlay),)
    if image_format == "qcow2":
        return (files.whole((path, image_format), *chain),)
    return ("-f", image_format, files.name(path))


class _Measure(msgspec.Struct):
    """`BlockMeasureInfo` of QEMU's qapi/block-core.json; only the fields that we need."""

    required: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


RecordT = TypeVar("RecordT")


def _decoded(done: Completed, kind: type[RecordT]) -> RecordT:
    try:
        return decode_json(done.stdout, kind)
    except UndecodableError as error:
        raise MicaError(
            ErrorCode.UNAVAILABLE, "qemu-img answered in a way that can't be understood."
        ) from error


Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]
LIST_MAX = 65_536
"""Snapshots or bitmaps inside a qcow2 (docs/interop/qcow2 of QEMU)."""


class _Reach:
    """Reads the lines of `qemu-img map --output=json`, one per run of the disk, without keeping
    them.
    """

    _RUN = re.compile(rb'"length": (\d{1,19}),.*"offset": (\d{1,19})\b')
    _LINE_BYTES = 1024

    def __init__(self) -> None:
        self.bytes = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: self._LINE_BYTES]
        for line in lines:
            self._take(line)
        self._take(self._rest)

    def _take(self, line: bytes) -> None:
        if (run := self._RUN.search(line)) is not None:
            self.bytes = max(self.bytes, int(run[1]) + int(run[2]))


class _Check(msgspec.Struct):
    """`ImageCheck` of QEMU's qapi/block-core.json; only the fields that we need."""

    corruptions: Count = 0
    leaks: Count = 0
    corruptions_fixed: Count = msgspec.field(name="corruptions-fixed", default=0)
    leaks_fixed: Count = msgspec.field(name="leaks-fixed", default=0)


class _InfoSnapshot(msgspec.Struct):
    """`SnapshotInfo` of qapi/block-core.json; only the fields that we need."""

    name: Name


class _InfoBitmap(msgspec.Struct):
    """`Qcow2BitmapInfo` of qapi/block-core.json; only the fields that we need."""

    name: Name
    flags: Annotated[list[Name], msgspec.Meta(max_length=64)] = []


class _InfoData(msgspec.Struct):
    """`ImageInfoSpecificQCow2`; only the fields that we need."""

    bitmaps: Annotated[list[_InfoBitmap], msgspec.Meta(max_length=LIST_MAX)] = []


class _InfoSpecific(msgspec.Struct):
    """`ImageInfoSpecific` of a qcow2."""

    data: _InfoData = msgspec.field(default_factory=_InfoData)


class _Info(msgspec.Struct):
    """`ImageInfo` of qapi/block-core.json; only the fields that we need."""

    virtual_size: Count = msgspec.field(name="virtual-size")
    snapshots: Annotated[list[_InfoSnapshot], msgspec.Meta(max_length=LIST_MAX)] = []
    specific: _InfoSpecific = msgspec.field(name="format-specific", default_factory=_InfoSpecific)


def _told(error: CommandError, what: str) -> CommandError:
    """The failure in words for the user; the log has the rest."""
    code = error.problem.code
    if "File too large" in error.output or code is ErrorCode.INSUFFICIENT_SPACE:
        code = ErrorCode.INSUFFICIENT_SPACE
        detail = f"The disk can't be {what}: it needs more space than was set aside for it."
    elif code is ErrorCode.TIMED_OUT:
        detail = f"The disk can't be {what}: it took too long, or made no progress, and was ended."
    elif "lock" in error.output and "Failed to get" in error.output:
        code = ErrorCode.IN_USE
        detail = f"The disk can't be {what}: another program has its file open."
    elif error.returncode is not None and error.returncode < 0:
        detail = f"The disk can't be {what}: its data are damaged, and crash what reads them."
    elif error.returncode is None:
        return error  # it can't be started
    else:
        detail = (
            f"The disk can't be {what}: its data are damaged, or of a kind that can't be read"
            " here. Check it with the tool that made it."
        )
    return CommandError(
        detail,
        replay=error.replay,
        returncode=error.returncode,
        output=error.output,
        code=code,
    )
