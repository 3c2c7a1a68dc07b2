"""Headers of other hypervisors' disks: what is one whole file with the data in it, and how large.

format       source of the layout
vmdk         "Virtual Disk Format 5.0" (VMware), as qemu's block/vmdk.c reads it
vhd          "Virtual Hard Disk Image Format Specification" 1.0 (Microsoft)
vhdx         [MS-VHDX] 2.2 to 2.6
vdi          VirtualBox's VDICore.h, as qemu's block/vdi.c reads it
parallels    docs/interop/parallels.txt of qemu

A disk may name other files: extents, a parent, a base. None of that is taken, because the name
would be one of this host's; what was found is named. Pure: reads through `Data` alone.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from typing import Protocol

from vmkernel.model import SourceFormat

__all__ = ["Data", "ForeignError", "MemoryData", "VHD_COOKIE", "prove_foreign"]

SECTOR_BYTES = 512
_MAX_BYTES = 1 << 50

VHD_COOKIE = b"conectix"
_VHD = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_VHD_DIFFERENCING = 4
_VHD_KINDS = (2, 3)

_VMDK = struct.Struct("<4sIIQQQQIQQQBcccc")
_VMDK_AT_END = (1 << 64) - 1
_VMDK_DESCRIPTOR_AT = 0x200
_VMDK_DESCRIPTOR_BYTES = 20 * SECTOR_BYTES
"""Where, and how far, qemu looks for a parent whatever the header says."""
_VMDK_WHOLE = ("monolithicsparse", "streamoptimized")
_VMDK_MAX_DESCRIPTOR = 1 << 20

_VDI_MAGIC = 0xBEDA107F
_VDI = struct.Struct("<IIII")
_VDI_DIFFERENCING = 4

_VHDX_HEADERS_AT = (64 << 10, 128 << 10)
_VHDX_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_VHDX_LOG_SECTOR, _VHDX_LOG_ENTRY = 4096, 64
_VHDX_MAX_LOG = 256 << 20
"""Hyper-V and qemu make logs of 1 MiB."""
_VHDX_REGIONS_AT = (192 << 10, 256 << 10)
_VHDX_REGION = struct.Struct("<4sIII")
_VHDX_ENTRY = struct.Struct("<16sQII")
_VHDX_TABLE = struct.Struct("<8sHH")
_VHDX_ITEM = struct.Struct("<16sIIII")
_VHDX_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_VHDX_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VHDX_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_VHDX_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_VHDX_MAX_ENTRIES = 2047

_PARALLELS = struct.Struct("<16sIIIIIQ")
_PARALLELS_MAGICS = (b"WithoutFreeSpace", b"WithouFreSpacExt")


class ForeignError(Exception):
    """Not a disk that can be taken; the message says what was found."""


class Data(Protocol):
    """The bytes of a file."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, count: int) -> bytes:
        """Some of them; fewer at the end."""


class MemoryData:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._data)

    def read(self, offset: int, count: int) -> bytes:
        """Some of them; fewer at the end."""
        return self._data[offset : offset + count]


def prove_foreign(source: SourceFormat, data: Data) -> int:
    """The virtual size of a disk; ForeignError where it can't be taken as one whole file."""
    size = _PROOFS[source](data)
    if not 0 < size <= _MAX_BYTES:
        raise ForeignError(f"a virtual size of {size} bytes is not possible")
    return -(-size // SECTOR_BYTES) * SECTOR_BYTES


def _unpack(layout: struct.Struct, data: Data, offset: int) -> tuple[int | bytes, ...]:
    raw = data.read(offset, layout.size)
    if offset < 0 or len(raw) < layout.size:
        raise ForeignError("its header is cut off")
    return layout.unpack(raw)


# --- VMDK -------------------------------------------------------------------------------------


def _vmdk(data: Data) -> int:
    head = data.read(0, 21)
    if head.startswith(b"# Disk DescriptorFile"):
        names = _extent_names(data.read(0, _VMDK_MAX_DESCRIPTOR))
        raise ForeignError(
            "it is only a descriptor; the data lie in "
            f"{', '.join(names) or 'other files'}: export the disk as one file (streamOptimized)"
        )
    if head.startswith(b"COWD"):
        raise ForeignError("it is an ESX sparse extent (COWD); export it as streamOptimized")
    capacity = _vmdk_header(data, 0)
    for block in _vmdk_descriptors(data):
        _check_descriptor(block)
    return capacity * SECTOR_BYTES


def _vmdk_header(data: Data, offset: int, *, footer: bool = False) -> int:
    fields = _unpack(_VMDK, data, offset)
    magic, version, _, capacity = fields[:4]
    gd_offset = fields[9]
    if magic != b"KDMV":
        raise ForeignError("it does not begin like a sparse VMDK file")
    if version not in (1, 2, 3):
        raise ForeignError(f"VMDK version {version!r} is not known")
    if not capacity:
        # qemu would then go by the descriptor, which may name any file.
        raise ForeignError("its header has no capacity; it only describes other files")
    assert isinstance(capacity, int)
    if gd_offset == _VMDK_AT_END and not footer:
        # Of a streamed file the last but one sector is the header that counts.
        at = data.size - 2 * SECTOR_BYTES
        if _vmdk_header(data, at, footer=True) != capacity:
            raise ForeignError("its header and its footer name different sizes")
    return capacity


def _vmdk_descriptors(data: Data) -> list[bytes]:
    fields = _unpack(_VMDK, data, 0)
    at, length = fields[5], fields[6]
    assert isinstance(at, int)
    assert isinstance(length, int)
    blocks = [data.read(_VMDK_DESCRIPTOR_AT, _VMDK_DESCRIPTOR_BYTES)]
    if at and length:
        length *= SECTOR_BYTES
        if length > _VMDK_MAX_DESCRIPTOR or at * SECTOR_BYTES + length > data.size:
            raise ForeignError("its descriptor is not where one can be")
        blocks.append(data.read(at * SECTOR_BYTES, length))
    return blocks


def _check_descriptor(block: bytes) -> None:
    if (found := re.search(rb'parentFileNameHint\s*=?\s*"?([^"\r\n\0]*)', block)) is not None:
        raise ForeignError(f"it is the difference to {_shown(found[1])}; flatten it first")
    kind = re.search(rb'createType\s*=\s*"([^"\r\n\0]*)"', block)
    if kind is not None and kind[1].decode("latin-1").lower() not in _VMDK_WHOLE:
        names = ", ".join(_extent_names(block)) or "other files"
        raise ForeignError(f"it is of the type {_shown(kind[1])}, whose data lie in {names}")
    if kind is not None and len(names_ := _extent_names(block)) > 1:
        raise ForeignError(f"its data lie in several files: {', '.join(names_)}")


def _extent_names(block: bytes) -> list[str]:
    found = re.findall(rb'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+\w+\s+"([^"\r\n]*)"', block, re.M)
    return [_shown(name) for name in found[:8]]


def _shown(name: bytes) -> str:
    """A name out of a file, fit for a message."""
    text = name[:120].decode("utf-8", "replace").strip()
    return repr(text) if text else "another file"


# --- VHD --------------------------------------------------------------------------------------


def _vhd(data: Data) -> int:
    at = 0 if data.read(0, 8) == VHD_COOKIE else data.size - SECTOR_BYTES
    if data.read(max(at, 0), 8) != VHD_COOKIE:
        raise ForeignError("there is neither a VHD header nor a VHD footer in it")
    fields = _unpack(_VHD, data, at)
    current, cylinders, heads, sectors, kind = fields[9:14]
    if kind == _VHD_DIFFERENCING:
        raise ForeignError("it is a differencing VHD, which needs its parent; merge it first")
    if kind not in _VHD_KINDS:
        raise ForeignError(f"VHD type {kind!r} is not known")
    assert isinstance(current, int)
    assert isinstance(cylinders, int)
    assert isinstance(heads, int)
    assert isinstance(sectors, int)
    raw = bytearray(data.read(at, SECTOR_BYTES))
    stated = int.from_bytes(raw[64:68], "big")
    raw[64:68] = bytes(4)
    if ~sum(raw) & 0xFFFFFFFF != stated:
        raise ForeignError("its VHD footer has a wrong checksum")
    return max(current, cylinders * heads * sectors * SECTOR_BYTES)


# --- VHDX -------------------------------------------------------------------------------------


def _vhdx(data: Data) -> int:
    if data.read(0, 8) != b"vhdxfile":
        raise ForeignError("it does not begin like a VHDX file")
    _check_vhdx_log(data)
    base = _vhdx_metadata(data)
    signature, _, count = _unpack(_VHDX_TABLE, data, base)
    if signature != b"metadata":
        raise ForeignError("its metadata table is not where one can be")
    assert isinstance(count, int)
    if count > _VHDX_MAX_ENTRIES:
        raise ForeignError(f"it has {count} metadata entries")
    size: int | None = None
    for number in range(count):
        at = base + 32 + number * _VHDX_ITEM.size
        item, offset, length, _, _ = _unpack(_VHDX_ITEM, data, at)
        assert isinstance(offset, int)
        assert isinstance(length, int)
        if item == _VHDX_PARENT:
            raise ForeignError("it is a differencing VHDX, which needs its parent; merge it first")
        if item == _VHDX_PARAMETERS:
            bits = data.read(base + offset + 4, 4)
            if len(bits) < 4 or bits[0] & 0b10:
                raise ForeignError(
                    "it is a differencing VHDX, which needs its parent; merge it first"
                )
        if item == _VHDX_SIZE:
            size = int.from_bytes(data.read(base + offset, 8), "little")
    if size is None:
        raise ForeignError("it does not say its virtual size")
    return size


def _check_vhdx_log(data: Data) -> None:
    """Refuse a disk with changes in its log that are not yet in their places: whoever had it open
    did not close it ([MS-VHDX] 2.3)."""
    headers = [_VHDX_HEADER.unpack(raw) for at in _VHDX_HEADERS_AT if (raw := _vhdx_head(data, at))]
    if not headers:
        raise ForeignError("its headers are damaged")
    _, _, _, _, _, log, _, _, length, offset = max(headers, key=lambda fields: fields[2])
    if not any(log) or not offset or length > _VHDX_MAX_LOG:
        return
    for at in range(offset, min(offset + length, data.size), _VHDX_LOG_SECTOR):
        entry = data.read(at, _VHDX_LOG_ENTRY)
        if entry.startswith(b"loge") and entry[32:48] == log:
            raise ForeignError(
                "its log holds changes that are not yet in their places, because it was copied"
                " while it was in use or its host failed; open it once in Hyper-V, or mend it by"
                " `qemu-img check -r all`, and send it again"
            )


def _vhdx_head(data: Data, at: int) -> bytes | None:
    raw = data.read(at, _VHDX_HEADER.size)
    return raw if len(raw) == _VHDX_HEADER.size and raw.startswith(b"head") else None


def _vhdx_metadata(data: Data) -> int:
    for table in _VHDX_REGIONS_AT:
        signature, _, count, _ = _unpack(_VHDX_REGION, data, table)
        assert isinstance(count, int)
        if signature != b"regi" or count > _VHDX_MAX_ENTRIES:
            continue
        for number in range(count):
            at = table + _VHDX_REGION.size + number * _VHDX_ENTRY.size
            kind, offset, _, _ = _unpack(_VHDX_ENTRY, data, at)
            assert isinstance(offset, int)
            if kind == _VHDX_METADATA and 1 << 20 <= offset < data.size:
                return offset
    raise ForeignError("its region tables name no metadata")


# --- VDI, Parallels ---------------------------------------------------------------------------


def _vdi(data: Data) -> int:
    signature, version, _, kind = _unpack(_VDI, data, 0x40)
    if signature != _VDI_MAGIC:
        raise ForeignError("it does not begin like a VDI file")
    if version != 0x00010001:
        raise ForeignError(f"VDI version {version!r} is not known")
    parents = data.read(0x1A8, 32)
    if kind == _VDI_DIFFERENCING or any(parents):
        raise ForeignError("it is a differencing VDI, which needs its parent; clone it first")
    if kind not in (1, 2):
        raise ForeignError(f"VDI type {kind!r} is not known")
    return int.from_bytes(data.read(0x170, 8), "little")


def _parallels(data: Data) -> int:
    head = data.read(0, 64)
    if head.lstrip().startswith(b"<?xml"):
        raise ForeignError("it is only a descriptor; send the .hds file with the data")
    fields = _unpack(_PARALLELS, data, 0)
    magic, version, sectors = fields[0], fields[1], fields[6]
    if magic not in _PARALLELS_MAGICS:
        raise ForeignError("it does not begin like a Parallels disk")
    if version != 2:
        raise ForeignError(f"Parallels version {version!r} is not known")
    assert isinstance(sectors, int)
    if magic == _PARALLELS_MAGICS[0]:
        sectors &= 0xFFFFFFFF
    return sectors * SECTOR_BYTES


_PROOFS: dict[SourceFormat, Callable[[Data], int]] = {
    SourceFormat.VMDK: _vmdk,
    SourceFormat.VHD: _vhd,
    SourceFormat.VHDX: _vhdx,
    SourceFormat.VDI: _vdi,
    SourceFormat.PARALLELS: _parallels,
}
