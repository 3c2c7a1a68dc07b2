"""qemu-img: make, convert, resize. Formats are always given, never guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vmkernel.host.runner import Runner

__all__ = ["QemuImg"]

_QUICK_S = 120.0
_CONVERT_S = 24 * 3600.0
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


class QemuImg:
    """One method a sub-command; `user` runs it as that uid, which must reach the files."""

    def __init__(self, runner: Runner, program: str = "qemu-img") -> None:
        self._runner = runner
        self._program = program

    async def create_qcow2(self, path: Path, size_bytes: int, *, user: int | None = None) -> None:
        """An empty qcow2; `path` may exist and is overwritten."""
        await self._run(
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "compat=1.1",
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
        on_fraction: Callable[[float], None],
        user: int | None = None,
    ) -> None:
        """Copy a disk into a new file of another format, telling the fraction done."""
        tail = bytearray()

        def listen(data: bytes) -> None:
            tail.extend(data)
            if found := _PERCENT.findall(bytes(tail)):
                on_fraction(float(found[-1]) / 100)
            del tail[:-32]

        await self._runner.run(
            [
                self._program, "convert", "-p", "-f", source_format, "-O", target_format,
                _name(source), _name(target),
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
        user: int | None = None,
    ) -> None:
        """Change the size that the guest sees; nothing may have the file open."""
        flags = ["--shrink"] if shrink else []
        await self._run(
            "resize", "-q", "-f", image_format, *flags, _name(path), str(size_bytes), user=user
        )

    async def _run(self, *words: str, user: int | None) -> None:
        await self._runner.run([self._program, *words], timeout_s=_QUICK_S, user=user)


def _name(path: Path) -> str:
    """A file name that qemu-img can't take for a protocol (`nbd:…`) or an option."""
    return f"file:{path}"
