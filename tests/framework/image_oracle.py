"""The results of oslo.utils' format inspector and of our own readers for the same data, and their
permitted differences.

The inspector is what OpenStack judges uploaded images by. It reads a stream and can't seek; what
follows from that, and from other wishes than ours, is in DIFFERENCES with its reason. Everything
else that it finds unsafe must be refused by us.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass

from oslo_utils.imageutils import format_inspector

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import FormatError, MemoryData, Rank, whole_sectors
from vmkernel.storage.formats.inspection import detect, verify_source
from vmkernel.storage.formats.registry import FORMATS

__all__ = ["DIFFERENCES", "Difference", "Opinion", "differences", "oracle", "ours"]

_CHUNK_BYTES = 1 << 16
_RAW = "raw"
_THEIR_NAMES = {"gpt": _RAW}
"""A table of partitions, or none: both are raw to us."""


@dataclass(frozen=True)
class Opinion:
    """A result for some data."""

    format: str | None
    """None: it looks like several."""
    size_bytes: int | None
    """None: the header doesn't say it."""
    safe: bool


def oracle(data: bytes) -> Opinion:
    """The inspector's result."""
    logging.getLogger(format_inspector.__name__).setLevel(logging.CRITICAL)
    wrapper = format_inspector.InspectWrapper(io.BytesIO(data))
    while wrapper.read(_CHUNK_BYTES):
        pass
    wrapper.close()
    found = wrapper.formats or []
    if len(found) != 1:
        return Opinion(None, None, safe=False)
    (inspector,) = found
    try:
        inspector.safety_check()
        safe = True
    except (format_inspector.ImageFormatError, format_inspector.SafetyCheckFailed):
        safe = False
    try:
        size = inspector.virtual_size or None
    except Exception:  # whatever it stumbles over in broken data
        size = None
    return Opinion(_THEIR_NAMES.get(str(inspector), str(inspector)), size, safe)


_COMPARED = {
    **{item: item.source.value for item in FORMATS if item.source is not None},
    **{item: type(item).__name__.lower() for item in FORMATS if item.source is None},
}


def ours(data: bytes) -> Opinion:
    """That of the readers of uploaded images; data that none of them knows can be sent as raw."""
    view = MemoryData(data)
    try:
        found = detect(view)
    except FormatError:
        return Opinion(None, None, safe=False)
    source = SourceFormat.RAW if found is None else found.source
    name = _RAW if found is None else _COMPARED[found]
    try:
        size = None if source is None else verify_source(source, view)
    except FormatError:
        return Opinion(name, None, safe=False)
    return Opinion(name, size, safe=source is not None)


@dataclass(frozen=True)
class Difference:
    """A permitted difference."""

    reason: str
    applies: Callable[[bytes, Opinion, Opinion], bool]
    """By the data, the inspector's opinion and ours."""


def _named(data: bytes, at: int, *values: bytes) -> bool:
    return any(data[at : at + len(value)] == value for value in values)


_UNKNOWN_TO_THEM = ("linux-kernel", "linux-initrd", "parallels")
_CONTAINERS = tuple(_COMPARED[item] for item in FORMATS if item.rank is Rank.CONTAINER)
_BOOTED = (b"\x7fELF", b"070701", b"070702")
_VHD = b"conectix"
_SUBCLUSTERS = tuple(bytes([low]) for low in range(256) if low & 0b10000)
_USUAL_DESCRIPTOR = (1).to_bytes(8, "little") + (20).to_bytes(8, "little")

DIFFERENCES = (
    Difference(
        "What begins as a file with a disk in it is that, whatever else lies behind: only readers"
        " of that format are ever given it, by name.",
        lambda _, their, our: their.format is None and our.format in _CONTAINERS,
    ),
    Difference(
        "It knows neither kernels, initial file systems nor Parallels disks; what looks like one of"
        " them and like a disc is refused by us.",
        lambda data, their, our: (
            (their.format == _RAW and our.format in _UNKNOWN_TO_THEM)
            or (our.format is None and (_named(data, 0, *_BOOTED) or _named(data, 514, b"HdrS")))
        ),
    ),
    Difference(
        "A fixed VHD has its cookie at the end alone; the inspector looks at the beginning.",
        lambda data, _, our: our.format in ("vhd", None) and _named(data, len(data) - 512, _VHD),
    ),
    Difference(
        "The original size of a VHD may differ from the current one, and qemu takes the larger of"
        " that and its cylinders.",
        lambda _, their, our: their.format == our.format == "vhd" and their.safe,
    ),
    Difference(
        "A disc is shown to the guest as long as the file is, not as its volume descriptor says.",
        lambda _, their, our: their.format == our.format == "iso",
    ),
    Difference(
        "A disc may begin like a disk (for USB sticks): it is one whichever it is used as.",
        lambda data, their, our: their.format is None and our.format == "iso" and _mbr(data),
    ),
    Difference(
        "UDF alone begins with BEA01 (ECMA-167 2/9.2); the descriptors that the inspector looks"
        " for come behind it.",
        lambda data, *_: _named(data, 0x8001, b"BEA01", b"NSR02", b"NSR03"),
    ),
    Difference(
        "Of a disc that ends within its first descriptor the inspector says nothing.",
        lambda data, _, our: our.format == "iso" and len(data) < 34 << 10,
    ),
    Difference(
        "What is in a raw disk's table of partitions is the guest's own affair.",
        lambda _, their, our: their.format == our.format == _RAW,
    ),
    Difference(
        "Subclusters (bit 4) came with QEMU 5.2, and name no other file.",
        lambda data, _, our: our.format == "qcow2" and _named(data, 79, *_SUBCLUSTERS),
    ),
    Difference(
        "Version 2 of qcow2 has no bits for features: there are extensions at their place.",
        lambda data, _, our: our.format == "qcow2" and _named(data, 4, b"\0\0\0\2"),
    ),
    Difference(
        "Lines of a VMDK's descriptor that the inspector doesn't know, or that aren't ASCII, name"
        " no file that qemu would open: it reads the parent's name and the type alone.",
        lambda data, _, our: our.format == "vmdk" and _odd_lines(data),
    ),
    Difference(
        "A VMDK's descriptor may be anywhere in the file, and of any length; it is read where it"
        " is, and where and as far as qemu looks for it.",
        lambda data, _, our: our.format == "vmdk" and not _named(data, 28, _USUAL_DESCRIPTOR),
    ),
)


def _mbr(data: bytes) -> bool:
    return _named(data, 0x1FE, b"\x55\xaa")


def _odd_lines(data: bytes) -> bool:
    text = data[0x200 : 0x200 + 20 * 512].partition(b"\0")[0]
    known = (b"#", b"ddb", b"rw ", b"rdonly ", b"noaccess ")
    lines = [line.strip().lower() for line in text.split(b"\n")]
    return not text.isascii() or any(
        line and not line.startswith(known) and b"=" not in line for line in lines
    )


def differences(data: bytes) -> list[str]:
    """In what they differ without a reason."""
    their, our = oracle(data), ours(data)
    found = []
    undecided = their.format is None and not our.safe
    if their.format != our.format and not undecided:
        found.append(f"format: {their.format}, and ours {our.format}")
    if our.safe and not their.safe:
        found.append("it finds this unsafe, and we take it")
    if our.safe and None not in (their.size_bytes, our.size_bytes):
        assert their.size_bytes is not None
        if whole_sectors(their.size_bytes) != our.size_bytes:
            found.append(f"size: {their.size_bytes}, and ours {our.size_bytes}")
    if found and any(item.applies(data, their, our) for item in DIFFERENCES):
        return []
    return found
