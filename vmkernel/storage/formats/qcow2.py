"""The header of a qcow2 file (docs/interop/qcow2.txt of QEMU): pure reading and verification.

An uploaded qcow2 may name other files of the host (backing file, external data file) or ask for
keys; none of that is accepted. Our own linked volumes do name their backing file, so that a copy
without it fails instead of being full of holes; which file is opened is decided by the description.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmkernel.model import SourceFormat
from vmkernel.model.images import MAX_IMAGE_BYTES
from vmkernel.storage.formats.base import Data, Format, FormatError, Magic

__all__ = ["HEADER_PROBE_BYTES", "Qcow2", "Qcow2Header", "read_header"]

_MAGIC = b"QFI\xfb"
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
HEADER_PROBE_BYTES = 1 << 16
_KNOWN_INCOMPATIBLE = 0b11011
"""Dirty, corrupt, compression type, extended L2; bit 2 (external data file) is refused."""
_EXTERNAL_DATA = 1 << 2
_DIRTY = 1 << 0
"""Its reference counts are out of date, as for a disk that was not closed; QEMU repairs them."""
_CORRUPT = 1 << 1
_EXT_DATA_FILE = 0x44415441
_EXT_END = 0
_MAX_L1_BYTES = 32 << 20
_MAX_NAME_BYTES = 1023


@dataclass(frozen=True)
class Qcow2Header:
    """What is needed of a verified header."""

    version: int
    virtual_size_bytes: int
    cluster_bytes: int
    backing_file: str | None = None
    """The backing file that it names."""


def read_header(
    data: bytes,
    *,
    may_be_linked: bool = False,
    may_be_damaged: bool = False,
    file_bytes: int | None = None,
) -> Qcow2Header:
    """Verify the first bytes of a qcow2 file; FormatError also if it names a backing file and may
    not, if it says itself that it is damaged and may not be, or if its tables are beyond its
    `file_bytes`.
    """
    if data[:4] != _MAGIC:
        raise FormatError("it does not begin like a qcow2 file")
    if len(data) < _V2.size:
        raise FormatError("its header is cut off")
    fields = _V2.unpack_from(data)
    version, backing_offset, backing_bytes, cluster_bits, size, crypt = fields[1:7]
    l1_entries, l1_offset, refcounts_offset = fields[7:10]
    if version not in (2, 3):
        raise FormatError(f"version {version} is not known")
    if not 9 <= cluster_bits <= 21:
        raise FormatError(f"clusters of 2^{cluster_bits} bytes are not allowed")
    if backing_offset and not may_be_linked:
        raise FormatError("it needs a backing file; flatten it with `qemu-img convert`")
    if crypt:
        raise FormatError("it is encrypted")
    cluster = 1 << cluster_bits
    if l1_offset % cluster or l1_entries * 8 > _MAX_L1_BYTES:
        raise FormatError("its L1 table is not where one can be")
    if not 0 < size <= MAX_IMAGE_BYTES:
        raise FormatError(f"a virtual size of {size} bytes is not possible")
    if l1_entries * (cluster // 8) * cluster < size:
        raise FormatError("its L1 table is too small for its size")
    if file_bytes is not None and max(l1_offset, refcounts_offset) >= file_bytes:
        raise FormatError("it is cut off: its tables are beyond its end")
    _read_extensions(data, _header_bytes(data, version, may_be_damaged), cluster)
    backing = _backing_file(data, backing_offset, backing_bytes) if backing_offset else None
    return Qcow2Header(version, size, cluster, backing)


def _backing_file(data: bytes, offset: int, length: int) -> str:
    name = data[offset : offset + length]
    if not 0 < length <= _MAX_NAME_BYTES or len(name) != length:
        raise FormatError("the name of its backing file is not where one can be")
    return name.decode(errors="replace")


def _header_bytes(data: bytes, version: int, may_be_damaged: bool) -> int:
    if version == 2:
        return _V2.size
    if len(data) < _V2.size + _V3.size:
        raise FormatError("its header is cut off")
    incompatible, _, _, _, length = _V3.unpack_from(data, _V2.size)
    if incompatible & _EXTERNAL_DATA:
        raise FormatError("its data are in another file; convert it with `qemu-img convert`")
    if incompatible & _CORRUPT and not may_be_damaged:
        raise FormatError("it is marked as corrupt")
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise FormatError(f"it uses features that are not known ({incompatible:#x})")
    if length < _V2.size + _V3.size or length % 8:
        raise FormatError(f"a header of {length} bytes is not possible")
    return int(length)


def _read_extensions(data: bytes, offset: int, cluster: int) -> None:
    """Check the header extensions; none of them may name another file."""
    end = min(cluster, len(data))
    while offset + 8 <= end:
        kind, length = struct.unpack_from(">II", data, offset)
        if kind == _EXT_END:
            return
        if kind == _EXT_DATA_FILE:
            raise FormatError("it names another file for its data")
        offset += 8 + -(-length // 8) * 8
    if offset > cluster:
        raise FormatError("its header extensions don't end")


class Qcow2(Format):
    """QEMU's format, in which images and volumes are stored."""

    noun = "a qcow2 file"
    source = SourceFormat.QCOW2
    magics = (Magic(0, _MAGIC),)
    qemu_name = "qcow2"

    def size(self, data: Data) -> int:
        return self._header(data).virtual_size_bytes

    def check(self, data: Data) -> None:
        self._header(data)

    def has_tables(self, data: Data) -> bool:
        header = data.read(0, _V2.size + _V3.size)
        dirty = header[7:8] != b"\2" and _V3.unpack_from(header, _V2.size)[0] & _DIRTY
        return not dirty

    @staticmethod
    def _header(data: Data) -> Qcow2Header:
        return read_header(data.read(0, HEADER_PROBE_BYTES), file_bytes=data.size)
