"""VMDK: "Virtual Disk Format 5.0" (VMware), as qemu's block/vmdk.c reads it.

A disk that is one file carries its descriptor inside (monolithicSparse, streamOptimized). All other
kinds have their data in files that a descriptor names; none of those is opened, because it would be
a file of this host; the error names what was found.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import (
    SECTOR_BYTES,
    Data,
    Format,
    FormatError,
    Magic,
    shown_name,
    unpack,
)

__all__ = ["Vmdk"]

_SPARSE = Magic(0, b"KDMV")
_ESX_SPARSE = Magic(0, b"COWD")
_DESCRIPTOR = Magic(0, b"# Disk DescriptorFile")
_HEADER = struct.Struct("<4sIIQQQQIQQQBcccc")
_VERSIONS = (1, 2, 3)
_AT_END = (1 << 64) - 1
_FOOTER_SECTORS = 2
"""The footer is the last sector but one of a streamed file, between a marker and the end of the
stream."""
_FOOTER_MARKER = struct.pack("<II", 0, 3).ljust(SECTOR_BYTES - 8, b"\0")
"""Behind a count of sectors, which isn't needed."""
_DESCRIPTOR_AT = 0x200
_DESCRIPTOR_BYTES = 20 * SECTOR_BYTES
"""Where, and how far, qemu searches for a parent, whatever the header says."""
_WHOLE = ("monolithicsparse", "streamoptimized")
_MAX_DESCRIPTOR_BYTES = 1 << 20
_EXTENTS_SHOWN = 8
_AS_ONE_FILE = "export the disk as one file (streamOptimized)"


class Vmdk(Format):
    noun = "a VMDK file"
    source = SourceFormat.VMDK
    magics = (_SPARSE, _ESX_SPARSE, _DESCRIPTOR)
    qemu_name = "vmdk"

    def has_tables(self, data: Data) -> bool:
        del data
        return True

    def size(self, data: Data) -> int:
        if _DESCRIPTOR.at(data):
            names = _extent_names(data.read(0, _MAX_DESCRIPTOR_BYTES))
            raise FormatError(
                f"it is only a descriptor; the data are in {', '.join(names) or 'other files'}:"
                f" {_AS_ONE_FILE}"
            )
        if _ESX_SPARSE.at(data):
            raise FormatError("it is an ESX sparse extent (COWD); export it as streamOptimized")
        return _header(data, 0).capacity_sectors * SECTOR_BYTES

    def check(self, data: Data) -> None:
        header = _header(data, 0)
        if header.directory_at == _AT_END:
            _check_footer(data, header)
        described = [_check_descriptor(block) for block in _descriptors(data)]
        if not any(described):
            raise FormatError(
                f"it is one of the files of a disk, without its descriptor: {_AS_ONE_FILE}"
            )


class _Header(NamedTuple):
    """What is needed of a sparse header, at the beginning of a file or in its footer."""

    version: int
    capacity_sectors: int
    descriptor_at: int
    descriptor_sectors: int
    directory_at: int


def _header(data: Data, offset: int) -> _Header:
    fields = unpack(_HEADER, data, offset)
    if fields[0] != _SPARSE.value:
        raise FormatError("it does not begin like a sparse VMDK file")
    numbers = (fields[place] for place in (1, 3, 5, 6, 9))
    found = _Header(*(number for number in numbers if isinstance(number, int)))
    if found.version not in _VERSIONS:
        raise FormatError(f"VMDK version {found.version} is not known")
    if not found.capacity_sectors:
        # qemu would then go by the descriptor, which may name any file.
        raise FormatError("its header has no capacity; it only describes other files")
    return found


def _check_footer(data: Data, header: _Header) -> None:
    """In a streamed file the footer counts, not the header: both must agree."""
    at = data.size - _FOOTER_SECTORS * SECTOR_BYTES
    marker = data.read(at - SECTOR_BYTES, SECTOR_BYTES) if at >= SECTOR_BYTES else b""
    end = data.read(at + SECTOR_BYTES, SECTOR_BYTES)
    if marker[8:] != _FOOTER_MARKER or end != bytes(SECTOR_BYTES):
        raise FormatError("it is cut off: its footer is not at its end")
    footer = _header(data, at)
    if footer.directory_at == _AT_END:
        raise FormatError("its footer names another footer")
    if footer._replace(directory_at=header.directory_at) != header:
        raise FormatError("its header and its footer say different things")


def _descriptors(data: Data) -> list[bytes]:
    header = _header(data, 0)
    at, length = header.descriptor_at, header.descriptor_sectors
    blocks = [data.read(_DESCRIPTOR_AT, _DESCRIPTOR_BYTES)]
    if at and length:
        length *= SECTOR_BYTES
        if length > _MAX_DESCRIPTOR_BYTES or at * SECTOR_BYTES + length > data.size:
            raise FormatError("its descriptor is not where one can be")
        blocks.append(data.read(at * SECTOR_BYTES, length))
    return blocks


def _check_descriptor(block: bytes) -> bool:
    """True if it is a descriptor; FormatError if its disk needs other files.

    The text ends at its first NUL, as it does for qemu; a parent's name after it is refused too.
    """
    if (found := re.search(rb'parentFileNameHint\s*=?\s*"?([^"\r\n\0]*)', block)) is not None:
        raise FormatError(f"it is the difference to {shown_name(found[1])}; flatten it first")
    text = block.partition(b"\0")[0]
    kind = re.search(rb'createType\s*=\s*"([^"\r\n]*)"', text)
    if kind is None:
        return False
    names = _extent_names(text)
    if kind[1].decode("latin-1").lower() not in _WHOLE:
        raise FormatError(
            f"it is of the type {shown_name(kind[1])}, whose data are in"
            f" {', '.join(names) or 'other files'}"
        )
    if len(names) > 1:
        raise FormatError(f"its data are in several files: {', '.join(names)}")
    if not names:
        raise FormatError("its descriptor names no data")
    if any("/" in name for name in names):
        raise FormatError(f"its descriptor names the data of another file: {names[0]}")
    return True


def _extent_names(block: bytes) -> list[str]:
    found = re.findall(rb'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+\w+\s+"([^"\r\n]*)"', block, re.M)
    return [shown_name(name) for name in found[:_EXTENTS_SHOWN]]
