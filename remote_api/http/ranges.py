"""Ranges of bytes in requests and answers (RFC 9110 section 14): one range, or the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

from remote_api.schema import ApiError, HttpCode

__all__ = ["Part", "wanted_part"]

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.I)


@dataclass(frozen=True)
class Part:
    """A part of a file; `whole` if it was not requested as a range."""

    offset: int
    length: int
    size: int
    whole: bool

    @property
    def status(self) -> int:
        return 200 if self.whole else 206

    @property
    def headers(self) -> dict[str, str]:
        """The headers that describe it."""
        told = {"accept-ranges": "bytes", "content-length": str(self.length)}
        if not self.whole:
            last = self.offset + self.length - 1
            told["content-range"] = f"bytes {self.offset}-{last}/{self.size}"
        return told


def wanted_part(size: int, etag: str, asked: str | None, if_range: str | None) -> Part:
    """The part to return.

    Anything but a single range of bytes is ignored, as the standard allows, and so is a range of
    data that have changed (`If-Range`). Raises ApiError (416) if the range begins after the end.
    """
    whole = Part(0, size, size, whole=True)
    if asked is None or (if_range is not None and if_range != etag):
        return whole
    match = _RANGE.match(asked)
    if match is None or not (match[1] or match[2]):
        return whole
    if not match[1]:
        length = min(int(match[2]), size)
        if length:
            return Part(size - length, length, size, whole=False)
    else:
        first = int(match[1])
        last = min(int(match[2]) if match[2] else size - 1, size - 1)
        if match[2] and int(match[2]) < first:
            return whole
        if first < size:
            return Part(first, last - first + 1, size, whole=False)
    raise ApiError(
        HttpCode.RANGE_NOT_SATISFIABLE,
        f"There are {size} bytes; the range starts after the end.",
        headers={"content-range": f"bytes */{size}"},
    )
