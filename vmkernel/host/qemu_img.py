"""qemu-img: make, convert, resize. Formats are always given, never guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vmkernel.host.runner import Runner
from vmkernel.model import ErrorCode, MicaError

__all__ = ["CheckReport", "QemuImg"]

_QUICK_S = 120.0
_CHECK_S = 4 * 3600.0
_CONVERT_S = 24 * 3600.0
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


@dataclass(frozen=True)
class CheckReport:
    """What is left of each kind of fault, and what was mended."""

    corruptions: int
    leaks: int
    corruptions_fixed: int
    leaks_fixed: int


class QemuImg:
    """One method a sub-command; `user` runs it as that uid, which must reach the files."""

    def __init__(self, runner: Runner, program: str = "qemu-img") -> None:
        self._runner = runner
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
    ) -> None:
        """Copy a disk into a new file, telling the fraction done."""
        tail = bytearray()

        def listen(data: bytes) -> None:
            tail.extend(data)
            if found := _PERCENT.findall(bytes(tail)):
                on_fraction(float(found[-1]) / 100)
            del tail[:-32]

        options = ["-o", "preallocation=falloc"] if thick else []
        await self._runner.run(
            [
                self._program, "convert", "-p", "-f", source_format, "-O", target_format,
                *options, _name(source), _name(target),
            ],
            timeout_s=_CONVERT_S,
            on_stdout=listen,
            user=user,
        )  # fmt: skip

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
            "resize", "-q", "-f", image_format, *flags, _name(path), str(size_bytes), user=user
        )

    async def check(
        self, path: Path, image_format: str, *, repair: str | None, user: int | None = None
    ) -> CheckReport:
        """Look whether a qcow2's tables agree; `repair` is `leaks` or `all`."""
        words = [] if repair is None else ["-r", repair]
        done = await self._runner.run(
            [
                self._program, "check", "--output=json", "-f", image_format, *words, _name(path),
            ],
            timeout_s=_CHECK_S,
            ok=(0, 2, 3),
            user=user,
        )  # fmt: skip
        return _read_report(done.stdout)

    async def _run(self, *words: str, user: int | None) -> None:
        await self._runner.run([self._program, *words], timeout_s=_QUICK_S, user=user)


class _Check(msgspec.Struct):
    """`ImageCheck` of QEMU's qapi/block-core.json, as far as it matters."""

    corruptions: int = 0
    leaks: int = 0
    corruptions_fixed: int = msgspec.field(name="corruptions-fixed", default=0)
    leaks_fixed: int = msgspec.field(name="leaks-fixed", default=0)


def _read_report(text: bytes) -> CheckReport:
    try:
        found = msgspec.json.decode(text, type=_Check)
    except msgspec.DecodeError as error:
        raise MicaError(
            ErrorCode.UNAVAILABLE, f"qemu-img check said nothing that can be read: {error}."
        ) from error
    return CheckReport(found.corruptions, found.leaks, found.corruptions_fixed, found.leaks_fixed)


def _name(path: Path) -> str:
    """A file name that qemu-img can't take for a protocol (`nbd:…`) or an option."""
    return f"file:{path}"
