"""The pixels of a PNG (RFC 2083) of eight bits a colour."""

from __future__ import annotations

import struct
import zlib

__all__ = ["png_rows"]

RGB = 2


def png_rows(png: bytes) -> list[bytes]:
    """The rows of a picture: red, green and blue, a byte each; its checksums are verified."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, width, height = 8, b"", 0, 0
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", png[at + 8 + length :][:4])[0]
        if kind == b"IHDR":
            width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (bits, colour, interlaced) == (8, RGB, 0)
        elif kind == b"IDAT":
            data += body
        at += 12 + length
    raw, line = zlib.decompress(data), width * 3
    rows, above = [], bytes(line)
    for y in range(height):
        start = y * (line + 1)
        above = _unfiltered(raw[start], raw[start + 1 : start + 1 + line], above)
        rows.append(above)
    return rows


def _unfiltered(kind: int, row: bytes, above: bytes) -> bytes:
    if kind == 0:
        return row
    out = bytearray(row)
    for i in range(len(out)):
        left = out[i - 3] if i >= 3 else 0
        corner = above[i - 3] if i >= 3 else 0
        guess = (0, left, above[i], (left + above[i]) // 2, _paeth(left, above[i], corner))[kind]
        out[i] = (out[i] + guess) & 0xFF
    return bytes(out)


def _paeth(left: int, above: int, corner: int) -> int:
    near = left + above - corner
    return min((left, above, corner), key=lambda value: abs(near - value))
