"""The format of a new image: declared by the sender or detected from the header, and verified
either way.

Pure: reads only through `Data`. Data are never taken for a disk by guessing: if neither sender nor
header says what it is, or if it looks like two formats, it is refused.
"""

from __future__ import annotations

from vmkernel.model import Compression, SourceFormat
from vmkernel.storage.formats.archives import archive_of
from vmkernel.storage.formats.base import Data, Format, FormatError, MemoryData, Rank
from vmkernel.storage.formats.compressions import packing_of
from vmkernel.storage.formats.registry import FORMATS, format_of_source

__all__ = ["compression_of", "detect", "format_of", "verify_source"]

_UNPACK = "unpack it, and send the disk that is in it"


def compression_of(
    head: bytes, declared: Compression | None, source: SourceFormat | None
) -> Compression:
    """How data that begin with `head` are compressed; FormatError if it is not as declared.

    An initrd is kept compressed, unless it is declared to be compressed twice.
    """
    data = MemoryData(head)
    packing = packing_of(data)
    found = packing.kind if packing is not None else None
    if declared is None:
        if source is not None and format_of_source(source).may_begin_like_archives:
            return Compression.NONE
        return found or Compression.NONE
    if declared is not Compression.NONE and declared is not found:
        what = archive_of(data, parts=True) or (packing.noun if packing is not None else None)
        but = f": they are {what}" if what else ""
        raise FormatError(f"the data are not compressed by {declared}{but}")
    return declared


def detect(data: Data) -> Format | None:
    """The one format that unpacked data look like; FormatError if there are several."""
    matching = [item for item in FORMATS if item.matches(data)]
    if not matching:
        return None
    rank = min(item.rank for item in matching)
    found = [item for item in matching if item.rank is rank]
    if len(found) > 1:
        names = " and like ".join(sorted(item.noun for item in found))
        raise FormatError(f"it looks like {names}; set the format")
    return found[0]


def format_of(data: Data, declared: SourceFormat | None) -> SourceFormat:
    """The source format of unpacked data; FormatError if it is neither declared nor detected."""
    if declared is not None:
        return declared
    if (what := _package(data)) is not None:
        raise FormatError(f"it is {what}; {_UNPACK}")
    found = detect(data)
    if found is None:
        raise FormatError("the header does not say what it is; set the format")
    if found.source is None:
        raise FormatError(f"it is {found.noun}; {found.advice}")
    return found.source


def verify_source(source: SourceFormat, data: Data) -> int:
    """The virtual size of unpacked data of that format; FormatError if they aren't of it."""
    item = format_of_source(source)
    if not item.may_begin_like_archives and (what := _package(data)) is not None:
        raise FormatError(f"it is {what}; {_UNPACK}")
    if item.holds_anything:
        packing = packing_of(data)
        if packing is not None:
            raise FormatError(f"it is {packing.noun}; {_UNPACK}")
        for other in FORMATS:
            if other.rank is Rank.CONTAINER and other.begins(data):
                raise FormatError(f"it is {other.noun}, not {item.noun}")
    return item.verify(data)


def _package(data: Data) -> str | None:
    """The name of a package that is never unpacked here, if the data are one."""
    if (what := archive_of(data)) is not None:
        return what
    packing = packing_of(data)
    return packing.noun if packing is not None and packing.kind is None else None
