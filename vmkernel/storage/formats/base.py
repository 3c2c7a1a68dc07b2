"""The interface of an image format, and the bytes that it reads."""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import ClassVar, NamedTuple, Protocol

from vmkernel.model import SourceFormat
from vmkernel.model.images import MAX_IMAGE_BYTES
from vmkernel.model.volumes import SECTOR_BYTES

__all__ = [
    "Data",
    "FileData",
    "Format",
    "FormatError",
    "HEAD_BYTES",
    "Magic",
    "MemoryData",
    "Rank",
    "SECTOR_BYTES",
    "shown_name",
    "unpack",
    "whole_sectors",
]

HEAD_BYTES = 1 << 16
"""Enough to recognise the formats that are kept as they are."""
"""As of any image (vmkernel/model/images.py)."""
_SHOWN_BYTES = 120


class FormatError(Exception):
    """The data can't be used; the message says what was found, as a clause about "it"."""


class Data(Protocol):
    """The bytes of a file."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes; fewer at the end."""


class MemoryData:
    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]


class FileData:
    """The bytes of an open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._fd, count, offset)


class Magic(NamedTuple):
    """Bytes by which data are recognised."""

    offset: int
    value: bytes

    def at(self, data: Data) -> bool:
        """True if the data have it."""
        return data.read(self.offset, len(self.value)) == self.value


class Rank(IntEnum):
    """Which format wins if the data look like several; two of the same rank are ambiguous."""

    CONTAINER = 0
    """A file that contains a disk, whose first bytes may also be the file's."""
    CONTENT = 1
    """Content that a machine reads directly."""
    TABLE = 2
    """A partition table. An ISO for USB sticks and a kernel begin with one too."""


class Format(ABC):
    """One format; see the package."""

    noun: ClassVar[str]
    """With its article, for messages."""
    source: ClassVar[SourceFormat | None] = None
    """The source format for images; None: it is recognised, and refused with `advice`."""
    advice: ClassVar[str] = ""
    rank: ClassVar[Rank] = Rank.CONTAINER
    magics: ClassVar[tuple[Magic, ...]] = ()
    """Any of them identifies it."""
    qemu_name: ClassVar[str | None] = None
    """None: it is never passed to qemu-img."""
    holds_anything: ClassVar[bool] = False
    """True: any bytes may be valid, so data of another format aren't taken for it."""
    may_begin_like_archives: ClassVar[bool] = False

    def begins(self, data: Data) -> bool:
        """True if the first bytes show this format."""
        return any(magic.at(data) for magic in self.magics)

    def matches(self, data: Data) -> bool:
        """True if the data are of this format."""
        return self.begins(data)

    @abstractmethod
    def size(self, data: Data) -> int:
        """The virtual size in bytes that the header states; FormatError if it states none."""

    def check(self, data: Data) -> None:
        """FormatError if the data name another file, need a key or are visibly damaged."""
        del data

    def pending_bytes(self, data: Data) -> int:
        """The length of a log that must be replayed to complete the disk; 0: none."""
        del data
        return 0

    def has_tables(self, data: Data) -> bool:
        """True if qemu-img can check, by tables as they are, that no piece of the disk is missing.

        Otherwise their places follow from its size, or opening the disk checks them.
        """
        del data
        return False

    def verify(self, data: Data) -> int:
        """The virtual size of a disk that can be taken; FormatError if it can't be."""
        size = self.size(data)
        if not 0 < size <= MAX_IMAGE_BYTES:
            raise FormatError(f"a virtual size of {size} bytes is not possible")
        self.check(data)
        return size


def unpack(layout: struct.Struct, data: Data, offset: int) -> tuple[int | bytes, ...]:
    """The fields of a header; FormatError if the data are too short."""
    raw = data.read(offset, layout.size) if offset >= 0 else b""
    if len(raw) < layout.size:
        raise FormatError("its header is cut off")
    return layout.unpack(raw)


def whole_sectors(size_bytes: int, sector_bytes: int = SECTOR_BYTES) -> int:
    """Rounded up to whole sectors, as a guest sees a disk."""
    return -(-size_bytes // sector_bytes) * sector_bytes


def shown_name(name: bytes) -> str:
    """A name read from a file, made safe for a message."""
    text = name[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
    return repr(text) if text else "another file"
