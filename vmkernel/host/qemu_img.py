"""qemu-img: make, convert, resize, check. Formats are always given, never guessed.

It reads data from outside, so it runs confined (`vmkernel.workers`): its uid, a bound on memory
and on the size of what it writes, no network, no file but the ones it was given. A conversion
that makes no progress is killed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.runner import Completed
from vmkernel.host.worker import Confinement, Workers
from vmkernel.model import ErrorCode, MicaError

__all__ = ["CheckReport", "Layer", "QemuImg"]

_QUICK_S = 120.0
_CHECK_S = 4 * 3600.0
_CONVERT_S = 24 * 3600.0
_SILENCE_S = 900.0
"""It tells each percent; a slow disk may need long for one of a large volume."""
_MEMORY_BYTES = 2 << 30
"""Of address space: threads' stacks, libraries and caches; some 100 MiB of it are ever used."""
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


Layer = tuple[Path, str]
"""A file that another stands on, and its format."""


@dataclass(frozen=True)
class CheckReport:
    """What is left of each kind of fault, and what was mended."""

    corruptions: int
    leaks: int
    corruptions_fixed: int
    leaks_fixed: int


class QemuImg:
    """One method a sub-command; `user` runs it as that uid, which must reach the files."""

    def __init__(self, workers: Workers, program: str = "qemu-img") -> None:
        self._workers = workers
        self._program = program

    async def create_qcow2(
        self, path: Path, size_bytes: int, *, thick: bool = False, user: int | None = None
    ) -> None:
        """An empty qcow2, with all its blocks where `thick`; `path` may exist and is
        overwritten."""
        await self._run(
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "compat=1.1,preallocation=falloc" if thick else "compat=1.1",
            _name(path),
            str(size_bytes),
            user=user,
            read=(),
            write=(path,),
        )

    async def create_linked(
        self,
        path: Path,
        size_bytes: int,
        *,
        backing_name: str,
        backing_format: str,
        user: int | None = None,
    ) -> None:
        """An empty qcow2 that is the difference to another file, which isn't opened; `path` may
        exist and is overwritten."""
        await self._run(
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-o",
            "compat=1.1",
            "-b",
            backing_name,
            "-F",
            backing_format,
            _name(path),
            str(size_bytes),
            user=user,
            read=(),
            write=(path,),
        )

    async def convert(
        self,
        source: Path,
        source_format: str,
        target: Path,
        target_format: str,
        *,
        thick: bool = False,
        on_fraction: Callable[[float], None],
        user: int | None = None,
        compress: bool = False,
        file_bytes: int | None = None,
        chain: Sequence[Layer] = (),
        snapshot: str | None = None,
    ) -> None:
        """Copy a disk into an existing file, telling the fraction done.

        `target` becomes no larger than `file_bytes`; `chain` are the files below `source`, from
        the upper one. With `snapshot`, what the snapshot of that name inside the qcow2 `source`
        holds: this alone may be read while a QEMU writes to the file.
        """
        tail = bytearray()

        def listen(data: bytes) -> None:
            tail.extend(data)
            if found := _PERCENT.findall(bytes(tail)):
                on_fraction(float(found[-1]) / 100)
            del tail[:-32]

        options = ["-o", "preallocation=falloc"] if thick else []
        named, given = ["-f", source_format], _name(source)
        if source_format == "qcow2":
            named, given = [], _whole((source, source_format), *chain)
        await self._run(
            "convert",
            "-p",
            *(["-c"] if compress else []),
            *(["-U", "-l", f"snapshot.name={snapshot}"] if snapshot is not None else []),
            *named,
            "-O",
            target_format,
            *options,
            given,
            _name(target),
            user=user,
            read=(source, *(path for path, _ in chain)),
            write=(target,),
            file_bytes=file_bytes,
            timeout_s=_CONVERT_S,
            silence_s=_SILENCE_S,
            on_stdout=listen,
        )

    async def resize(
        self,
        path: Path,
        image_format: str,
        size_bytes: int,
        *,
        shrink: bool,
        thick: bool = False,
        user: int | None = None,
    ) -> None:
        """Change the size that the guest sees; nothing may have the file open."""
        flags = ["--shrink"] if shrink else []
        if thick and not shrink:
            flags.append("--preallocation=falloc")
        await self._run(
            "resize",
            "-q",
            *flags,
            _whole((path, image_format)),
            str(size_bytes),
            user=user,
            read=(),
            write=(path,),
        )

    async def snapshot(self, action: str, tag: str, path: Path, *, user: int | None = None) -> None:
        """Make (`-c`), apply (`-a`) or delete (`-d`) a snapshot inside a qcow2 that nothing has
        open."""
        await self._run(
            "snapshot",
            "-q",
            action,
            tag,
            _whole((path, "qcow2")),
            user=user,
            read=(),
            write=(path,),
        )

    async def snapshots(self, path: Path, *, user: int | None = None) -> frozenset[str]:
        """The names of the snapshots inside a qcow2, which a QEMU may have open."""
        found = await self._info(path, user)
        return frozenset(item.name for item in found.snapshots)

    async def bitmaps(self, path: Path, *, user: int | None = None) -> dict[str, bool]:
        """The dirty bitmaps kept inside a qcow2 by their names; True where one is whole, which
        none is whose QEMU ended without putting it down."""
        found = await self._info(path, user)
        return {item.name: "in-use" not in item.flags for item in found.specific.data.bitmaps}

    async def add_bitmap(self, name: str, path: Path, *, user: int | None = None) -> None:
        """Begin to record, inside a qcow2 that nothing has open, what is written to it."""
        await self._run(
            *("bitmap", "--add", _whole((path, "qcow2")), name),
            user=user,
            read=(),
            write=(path,),
        )

    async def remove_bitmap(self, name: str, path: Path, *, user: int | None = None) -> None:
        """Forget a dirty bitmap inside a qcow2 that nothing has open."""
        await self._run(
            *("bitmap", "--remove", _whole((path, "qcow2")), name),
            user=user,
            read=(),
            write=(path,),
        )

    async def _info(self, path: Path, user: int | None) -> _Info:
        done = await self._run(
            "info",
            "--output=json",
            "-U",
            _whole((path, "qcow2")),
            user=user,
            read=(path,),
            write=(),
        )
        try:
            return decode_json(done.stdout, _Info)
        except UndecodableError as error:
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"qemu-img info said nothing that can be read: {error}."
            ) from error

    async def check(
        self, path: Path, image_format: str, *, repair: str | None, user: int | None = None
    ) -> CheckReport:
        """Look whether a qcow2's tables agree; `repair` is `leaks` or `all`."""
        words = [] if repair is None else ["-r", repair]
        done = await self._run(
            "check",
            "--output=json",
            *words,
            _whole((path, image_format)),
            user=user,
            read=(path,),
            write=() if repair is None else (path,),
            timeout_s=_CHECK_S,
            ok=(0, 2, 3),
        )
        return _read_report(done.stdout)

    async def _run(
        self,
        *words: str,
        user: int | None,
        read: Sequence[Path],
        write: Sequence[Path],
        file_bytes: int | None = None,
        timeout_s: float = _QUICK_S,
        silence_s: float | None = None,
        ok: tuple[int, ...] = (0,),
        on_stdout: Callable[[bytes], None] | None = None,
    ) -> Completed:
        confinement = Confinement(
            memory_bytes=_MEMORY_BYTES, file_bytes=file_bytes, read=tuple(read), write=tuple(write)
        )
        program = self._workers.program(self._program)
        return await self._workers.confined_runner.run(
            [*self._workers.prefix(confinement), program, *words],
            name=self._program,
            timeout_s=timeout_s,
            silence_s=silence_s,
            ok=ok,
            on_stdout=on_stdout,
            user=user,
        )


Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]
LIST_MAX = 65_536
"""Snapshots or bitmaps inside a qcow2 (docs/interop/qcow2 of QEMU)."""


class _Check(msgspec.Struct):
    """`ImageCheck` of QEMU's qapi/block-core.json, as far as it matters."""

    corruptions: Count = 0
    leaks: Count = 0
    corruptions_fixed: Count = msgspec.field(name="corruptions-fixed", default=0)
    leaks_fixed: Count = msgspec.field(name="leaks-fixed", default=0)


def _read_report(text: bytes) -> CheckReport:
    try:
        found = decode_json(text, _Check)
    except UndecodableError as error:
        raise MicaError(
            ErrorCode.UNAVAILABLE, f"qemu-img check said nothing that can be read: {error}."
        ) from error
    return CheckReport(found.corruptions, found.leaks, found.corruptions_fixed, found.leaks_fixed)


class _InfoSnapshot(msgspec.Struct):
    """`SnapshotInfo` of qapi/block-core.json, as far as it matters."""

    name: Name


class _InfoBitmap(msgspec.Struct):
    """`Qcow2BitmapInfo` of qapi/block-core.json, as far as it matters."""

    name: Name
    flags: Annotated[list[Name], msgspec.Meta(max_length=64)] = []


class _InfoData(msgspec.Struct):
    """`ImageInfoSpecificQCow2`, as far as it matters."""

    bitmaps: Annotated[list[_InfoBitmap], msgspec.Meta(max_length=LIST_MAX)] = []


class _InfoSpecific(msgspec.Struct):
    """`ImageInfoSpecific`, of a qcow2."""

    data: _InfoData = msgspec.field(default_factory=_InfoData)


class _Info(msgspec.Struct):
    """`ImageInfo` of qapi/block-core.json, as far as it matters."""

    snapshots: Annotated[list[_InfoSnapshot], msgspec.Meta(max_length=LIST_MAX)] = []
    specific: _InfoSpecific = msgspec.field(name="format-specific", default_factory=_InfoSpecific)


def _whole(*layers: Layer) -> str:
    """A disk with exactly these files, from the upper to the lowest, whatever their headers say;
    its format needs no other word."""
    node: dict[str, Any] | None = None
    for path, image_format in reversed(layers):
        below = {"backing": node} if image_format == "qcow2" else {}
        file = {"driver": "file", "filename": str(path)}
        node = {"driver": image_format, **below, "file": file}
    return f"json:{msgspec.json.encode(node).decode()}"


def _name(path: Path) -> str:
    """A file name that qemu-img can't take for a protocol (`nbd:…`) or an option."""
    return f"file:{path}"
