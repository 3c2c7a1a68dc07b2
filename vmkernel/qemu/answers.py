"""QEMU's answers as records: the only place that converts its words to ours.

A QEMU whose guest has broken out can answer anything. A number out of its range, a text or a list
that is too long fails the request that asked for it (QmpNonsenseError), and nothing else. Only the
fields that are used are declared; others are ignored. Sources: QEMU's qapi/*.json.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.qemu.errors import QmpNonsenseError

__all__ = [
    "Balloon",
    "Bitmap",
    "BlockDevice",
    "BlockNode",
    "BlockStatistics",
    "Chardev",
    "CpuModel",
    "Fd",
    "FdSet",
    "FdsetAdded",
    "Flows",
    "GuestStatistics",
    "Histogram",
    "Job",
    "MemoryDevice",
    "Migration",
    "NamedNode",
    "ProcessorPlace",
    "QomProperty",
    "Ram",
    "Status",
    "decode_answer",
]

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Number = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Word = Annotated[str, Meta(max_length=1024)]
"""A name or a path."""
Sentence = Annotated[str, Meta(max_length=1 << 16)]
Answer = TypeVar("Answer")

LIST_MAX = 4096
"""64 disks have some 300 nodes; no list of QEMU's that is read here is longer."""


class Status(msgspec.Struct, frozen=True):
    """`query-status`."""

    status: Word


class FdsetAdded(msgspec.Struct, frozen=True, rename="kebab"):
    """`add-fd`."""

    fdset_id: Number


class Fd(msgspec.Struct, frozen=True):
    """A descriptor of a set."""

    opaque: Word | None = None


class FdSet(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-fdsets`."""

    fdset_id: Number
    fds: Annotated[tuple[Fd, ...], Meta(max_length=LIST_MAX)] = ()


class Chardev(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-chardev`."""

    label: Word
    frontend_open: bool = False


class QomProperty(msgspec.Struct, frozen=True):
    """One of `qom-list`."""

    name: Word


class Inserted(msgspec.Struct, frozen=True):
    """`BlockDeviceInfo`; only its presence is of use."""


class BlockDevice(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-block`."""

    io_status: Word | None = None
    qdev: Word | None = None
    inserted: Inserted | None = None


class Job(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-jobs`."""

    id: Word
    status: Word
    current_progress: Count = 0
    total_progress: Count = 0
    error: Sentence | None = None


class Ram(msgspec.Struct, frozen=True):
    """`MigrationStats`."""

    total: Count = 0
    remaining: Count = 0


class Migration(msgspec.Struct, frozen=True, rename="kebab"):
    status: Word = ""
    ram: Ram | None = None
    error_desc: Sentence | None = None


class ProcessorPlace(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-hotpluggable-cpus`."""

    type: Word
    props: Annotated[dict[Word, Number], Meta(max_length=16)]
    qom_path: Word | None = None


class _MemoryDeviceData(msgspec.Struct, frozen=True):
    size: Count = 0
    id: Word | None = None


class MemoryDevice(msgspec.Struct, frozen=True):
    """One of `query-memory-devices`."""

    data: _MemoryDeviceData


class Bitmap(msgspec.Struct, frozen=True):
    """`BlockDirtyInfo`."""

    name: Word = ""
    count: Count = 0
    recording: bool = False
    inconsistent: bool = False
    persistent: bool = False


class NamedNode(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-named-block-nodes`."""

    node_name: Word = ""
    drv: Word = ""
    ro: bool = False
    dirty_bitmaps: Annotated[tuple[Bitmap, ...], Meta(max_length=LIST_MAX)] = ()


class BlockNode(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-blockstats`, with the nodes below it."""

    node_name: Word | None = None
    parent: BlockNode | None = None
    backing: BlockNode | None = None


class Histogram(msgspec.Struct, frozen=True):
    """`BlockLatencyHistogramInfo`."""

    bins: Annotated[tuple[Count, ...], Meta(max_length=64)] = ()


class Flows(msgspec.Struct, frozen=True):
    """`BlockDeviceStats`."""

    rd_operations: Count = 0
    rd_bytes: Count = 0
    rd_total_time_ns: Count = 0
    failed_rd_operations: Count = 0
    rd_latency_histogram: Histogram | None = None
    wr_operations: Count = 0
    wr_bytes: Count = 0
    wr_total_time_ns: Count = 0
    failed_wr_operations: Count = 0
    wr_latency_histogram: Histogram | None = None
    flush_operations: Count = 0
    flush_bytes: Count = 0
    flush_total_time_ns: Count = 0
    failed_flush_operations: Count = 0
    flush_latency_histogram: Histogram | None = None
    unmap_operations: Count = 0
    unmap_bytes: Count = 0
    unmap_total_time_ns: Count = 0
    failed_unmap_operations: Count = 0
    unmap_latency_histogram: Histogram | None = None


class BlockStatistics(msgspec.Struct, frozen=True):
    """One of `query-blockstats`, for statistics."""

    stats: Flows
    qdev: Word = ""


class Balloon(msgspec.Struct, frozen=True):
    """`query-balloon`."""

    actual: Count


class GuestStatistics(msgspec.Struct, frozen=True, rename="kebab"):
    """The balloon's property `guest-stats`. The guest can report any number; QEMU reports "unknown"
    as the largest one, or as -1.
    """

    last_update: Annotated[int, Meta(ge=0, le=253_402_300_799)] = 0
    """Seconds since the epoch, up to the year 9999."""
    stats: Annotated[dict[Word, int | float | None], Meta(max_length=64)] = {}


class CpuModel(msgspec.Struct, frozen=True, rename="kebab"):
    """One of `query-cpu-definitions`."""

    name: Word
    unavailable_features: Annotated[tuple[Word, ...], Meta(max_length=LIST_MAX)] = ()


def decode_answer(
    name: str, command: str, answer: bytes | msgspec.Raw, kind: type[Answer]
) -> Answer:
    """Decode an answer to `command` of the QEMU called `name`."""
    try:
        decoded = decode_json(answer, kind)
        if isinstance(decoded, list | tuple) and len(decoded) > LIST_MAX:
            raise UndecodableError(f"it is a list of {len(decoded)}")
    except UndecodableError as error:
        raise QmpNonsenseError(
            f"QEMU of {name} gave an invalid answer to {command} ({error})."
        ) from error
    return decoded
