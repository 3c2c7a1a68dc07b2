"""Content codings of answers (RFC 9110 section 12.5.3): gzip for whole texts of some size.

Never coded are streams (downloads, events, consoles), and answers that hold secrets: their length
would tell something of these to whoever can have text of their own in the same answer (BREACH).
"""

from __future__ import annotations

import asyncio
import gzip
import re

from remote_api.http.conditions import CODED_SUFFIX
from remote_api.http.exchange import Headers, Response

__all__ = ["MIN_BYTES", "accepts_gzip", "coded_tag", "compress", "is_compressible"]

MIN_BYTES = 1024
"""Less fits into one packet in any case, and costs as much as it saves."""
_LEVEL = 1
"""A list of 1,000 VMs: 1.4 MB become 43 kB in 3 ms; level 6 takes twice as long for 9 kB less."""
_THREAD_BYTES = 64 << 10
"""From here on it would keep other requests waiting for more than a millisecond."""
_MEDIA = frozenset({"application/json", "text/plain", "text/html"})
_QUALITY = re.compile(r"q=(1(?:\.0{0,3})?|0(?:\.\d{0,3})?)\Z", re.I)


def is_compressible(response: Response) -> bool:
    """True if an answer is a whole text."""
    media = (response.media_type or "").partition(";")[0]
    return (
        response.stream is None
        and media in _MEDIA
        and "content-encoding" not in response.headers
        and "content-length" not in response.headers
    )


def accepts_gzip(headers: Headers) -> bool:
    """True if the client prefers gzip to the plain form. Without a header it is sent that."""
    qualities: dict[str, float] = {}
    for entry in b",".join(headers.get(b"accept-encoding", [])).decode("latin-1").split(","):
        coding, *parameters = (part.strip().lower() for part in entry.split(";"))
        if coding:
            found = [match for part in parameters if (match := _QUALITY.match(part))]
            qualities[coding] = float(found[0][1]) if found else 1.0
    wanted = qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0)))
    return wanted > 0 and wanted >= qualities.get("identity", 0.0)


def coded_tag(etag: str) -> str:
    """The entity tag of the coded form; the same in its first part, which If-Match compares."""
    return f'{etag[:-1]}{CODED_SUFFIX}"'


async def compress(response: Response) -> None:
    """Code an answer's body."""
    if len(response.body) < _THREAD_BYTES:
        response.body = _gzip(response.body)
    else:
        response.body = await asyncio.to_thread(_gzip, response.body)
    response.headers["content-encoding"] = "gzip"


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, _LEVEL, mtime=0)
