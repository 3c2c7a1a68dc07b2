"""Write cpio archives ("newc") for the kernel, the same bits each time."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["CpioEntry", "write_cpio"]

DIRECTORY = 0o040000
REGULAR = 0o100000
LINK = 0o120000
BLOCK = 1 << 20


@dataclass(frozen=True)
class CpioEntry:
    """One entry; a folder has neither ``source`` nor ``content``."""

    path: str
    mode: int
    source: Path | None = None
    content: bytes | None = None

    @classmethod
    def folder(cls, path: str, mode: int = 0o755) -> "CpioEntry":
        return cls(path, DIRECTORY | mode)

    @classmethod
    def file(cls, path: str, source: Path, mode: int = 0o644) -> "CpioEntry":
        """Return a file with the content of another one."""
        return cls(path, REGULAR | mode, source=source)

    @classmethod
    def bytes(cls, path: str, content: bytes, mode: int = 0o644) -> "CpioEntry":
        """Return a file with the given content."""
        return cls(path, REGULAR | mode, content=content)

    def size(self) -> int:
        """Return the size of the content."""
        if self.content is not None:
            return len(self.content)
        return self.source.stat().st_size if self.source else 0


def _pad(file: BinaryIO, alignment: int = 4) -> None:
    file.write(b"\0" * (-file.tell() % alignment))


def _header(file: BinaryIO, inode: int, path: str, mode: int, size: int, epoch: int) -> None:
    name = path.encode() + b"\0"
    links = 2 if mode & DIRECTORY == DIRECTORY else 1
    fields = (inode, mode, 0, 0, links, epoch, size, 0, 0, 0, 0, len(name), 0)
    file.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
    _pad(file)


def write_cpio(target: Path, entries: list[CpioEntry], *, epoch: int) -> None:
    """Write an archive of the entries in the order given, owned by root."""
    with target.open("wb") as file:
        for inode, entry in enumerate(entries, 1):
            _header(file, inode, entry.path, entry.mode, entry.size(), epoch)
            if entry.content is not None:
                file.write(entry.content)
            elif entry.source is not None:
                with entry.source.open("rb") as source:
                    while block := source.read(BLOCK):
                        file.write(block)
            _pad(file)
        _header(file, 0, "TRAILER!!!", 0, 0, 0)
        _pad(file, 512)
