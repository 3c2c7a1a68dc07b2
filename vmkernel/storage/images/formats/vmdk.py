"""VMDK: "Virtual Disk Format 5.0" (VMware), as qemu's block/vmdk.c reads it.

A disk that is one file carries its descriptor inside (monolithicSparse, streamOptimized). All
other kinds have their data in files that a descriptor names, and none of those is opened, because
the name would be one of this host's; what was found is named.
"""

from __future__ import annotations

import re
import struct

from vmkernel.model import SourceFormat
from vmkernel.storage.images.formats.base import (
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
"""The footer is the last but one sector of a streamed file; the last one ends the stream."""
_DESCRIPTOR_AT = 0x200
_DESCRIPTOR_BYTES = 20 * SECTOR_BYTES
"""Where, and how far, qemu looks for a parent whatever the header says."""
_WHOLE = ("monolithicsparse", "streamoptimized")
_MAX_DESCRIPTOR_BYTES = 1 << 20
_EXTENTS_SHOWN = 8
_AS_ONE_FILE = "export the disk as one file (streamOptimized)"


class Vmdk(Format):
    """VMware."""

    noun = "a VMDK file"
    source = SourceFormat.VMDK
    magics = (_SPARSE, _ESX_SPARSE, _DESCRIPTOR)
    qemu_name = "vmdk"

    def size(self, data: Data) -> int:
        if _DESCRIPTOR.at(data):
            names = _extent_names(data.read(0, _MAX_DESCRIPTOR_BYTES))
            raise FormatError(
                "it is only a descriptor; the data lie in "
                f"{', '.join(names) or 'other files'}: {_AS_ONE_FILE}"
            )
        if _ESX_SPARSE.at(data):
            raise FormatError("it is an ESX sparse extent (COWD); export it as streamOptimized")
        return _capacity(data, 0) * SECTOR_BYTES

    def check(self, data: Data) -> None:
        described = [_check_descriptor(block) for block in _descriptors(data)]
        if not any(described):
            raise FormatError(
                f"it is one of the files of a disk, without its descriptor: {_AS_ONE_FILE}"
            )


def _capacity(data: Data, offset: int, *, footer: bool = False) -> int:
    fields = unpack(_HEADER, data, offset)
    magic, version, _, capacity = fields[:4]
    gd_offset = fields[9]
    if magic != _SPARSE.value:
        raise FormatError("it does not begin like a sparse VMDK file")
    if version not in _VERSIONS:
        raise FormatError(f"VMDK version {version!r} is not known")
    if not capacity:
        # qemu would then go by the descriptor, which may name any file.
        raise FormatError("its header has no capacity; it only describes other files")
    assert isinstance(capacity, int)
    if gd_offset == _AT_END and not footer:
        at = data.size - _FOOTER_SECTORS * SECTOR_BYTES
        if _capacity(data, at, footer=True) != capacity:
            raise FormatError("its header and its footer name different sizes")
    return capacity


def _descriptors(data: Data) -> list[bytes]:
    fields = unpack(_HEADER, data, 0)
    at, length = fields[5], fields[6]
    assert isinstance(at, int)
    assert isinstance(length, int)
    blocks = [data.read(_DESCRIPTOR_AT, _DESCRIPTOR_BYTES)]
    if at and length:
        length *= SECTOR_BYTES
        if length > _MAX_DESCRIPTOR_BYTES or at * SECTOR_BYTES + length > data.size:
            raise FormatError("its descriptor is not where one can be")
        blocks.append(data.read(at * SECTOR_BYTES, length))
    return blocks


def _check_descriptor(block: bytes) -> bool:
    """True if it is one; FormatError if it is of a disk that needs other files."""
    if (found := re.search(rb'parentFileNameHint\s*=?\s*"?([^"\r\n\0]*)', block)) is not None:
        raise FormatError(f"it is the difference to {shown_name(found[1])}; flatten it first")
    kind = re.search(rb'createType\s*=\s*"([^"\r\n\0]*)"', block)
    if kind is None:
        return False
    names = _extent_names(block)
    if kind[1].decode("latin-1").lower() not in _WHOLE:
        raise FormatError(
            f"it is of the type {shown_name(kind[1])}, whose data lie in"
            f" {', '.join(names) or 'other files'}"
        )
    if len(names) > 1:
        raise FormatError(f"its data lie in several files: {', '.join(names)}")
    return True


def _extent_names(block: bytes) -> list[str]:
    found = re.findall(rb'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+\w+\s+"([^"\r\n]*)"', block, re.M)
    return [shown_name(name) for name in found[:_EXTENTS_SHOWN]]
