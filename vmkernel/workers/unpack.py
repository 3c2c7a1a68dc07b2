"""Unpack gzip, xz, zstd or bzip2 from one file into another; memory and output are bounded.

JOB: source, target (descriptors), compression, limit_bytes. Outcome: size_bytes. Blocks of zeros
become holes. Several members after one another are one file (RFC 1952 2.2, the .xz format 1.1 and
2.2, RFC 8878 3.1), and data that a format allows after or between them are ignored:

gzip   zeros behind the last member, and anything else that isn't a member, as gzip(1) has it
bzip2  the same, as bzip2(1) has it; its blocks have at most 900 kB, so that memory is bounded
xz     zeros between and behind streams, in fours
zstd   skippable frames anywhere, also first

Windows and dictionaries are limited, and a message names the limit. zstd is libzstd by ctypes
(zstd.h, "Streaming decompression"): Python has none before 3.14.
"""

from __future__ import annotations

import bz2
import ctypes
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from vmkernel.workers.report import Refusal, Report, run

__all__ = ["DECODERS", "decoder", "main", "unpack"]

_INPUT_BYTES = 1 << 18
_OUTPUT_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_ZEROS = bytes(_BLOCK_BYTES)
_XZ_MEMORY_BYTES = 256 << 20
_XZ_DICTIONARY_BYTES = 192 << 20
"""`xz -9` has 64 MiB; this much fits into the memory above."""
_ZSTD_WINDOW_LOG_MAX = 27
"""`zstd --long` and `--ultra -22` take no more: 128 MiB."""
_XZ_PADDING = 4
_MEMBERS = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}
"""How a further member begins, of what lets anything else follow the last one."""
_ZSTD_D_WINDOW_LOG_MAX = 100


class Decoder(Protocol):
    """One member of a compressed file."""

    @property
    def eof(self) -> bool:
        """True after its end."""

    @property
    def unused(self) -> bytes:
        """The data after its end."""

    def feed(self, data: bytes) -> bytes:
        """More output from more input; Refusal if the data are damaged."""

    @property
    def hungry(self) -> bool:
        """True if it has returned everything that the input so far yields."""


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.hungry = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: bytes) -> bytes:
        try:
            out = self._inner.decompress(self._inner.unconsumed_tail + data, _OUTPUT_BYTES)
        except zlib.error as error:
            raise _broken("gzip") from error
        self.hungry = not self._inner.unconsumed_tail and len(out) < _OUTPUT_BYTES
        return out


class _KeepsInput:
    """The decoders of `lzma` and `bz2`, which keep what they haven't taken yet."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input


class _Xz(_KeepsInput):
    def __init__(self) -> None:
        super().__init__(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES))

    def feed(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data, _OUTPUT_BYTES)
        except lzma.LZMAError as error:
            if "Memory usage limit" in str(error):
                raise Refusal(
                    "unsupported",
                    "The xz data were packed with a dictionary of more than"
                    f" {_XZ_DICTIONARY_BYTES >> 20} MiB, which isn't unpacked here: pack them"
                    " again with `xz -9` or less.",
                ) from error
            raise _broken("xz") from error


class _Bzip2(_KeepsInput):
    def __init__(self) -> None:
        super().__init__(bz2.BZ2Decompressor())

    def feed(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data, _OUTPUT_BYTES)
        except OSError as error:
            raise _broken("bzip2") from error


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("position", ctypes.c_size_t),
    )


class _Zstd:
    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libzstd.so.1")
        except OSError as error:
            raise Refusal("unsupported", "This host has no libzstd.so.1 to unpack zstd.") from error
        self._lib.ZSTD_createDStream.restype = ctypes.c_void_p
        for name in ("ZSTD_decompressStream", "ZSTD_DCtx_setParameter"):
            getattr(self._lib, name).restype = ctypes.c_size_t
        self._lib.ZSTD_isError.argtypes = (ctypes.c_size_t,)
        self._lib.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
        self._lib.ZSTD_getErrorName.restype = ctypes.c_char_p
        self._stream = ctypes.c_void_p(self._lib.ZSTD_createDStream())
        if not self._stream:
            raise MemoryError
        self._lib.ZSTD_DCtx_setParameter(self._stream, _ZSTD_D_WINDOW_LOG_MAX, _ZSTD_WINDOW_LOG_MAX)
        self._output = ctypes.create_string_buffer(_OUTPUT_BYTES)
        self._left = b""
        self.eof = False
        self.unused = b""
        self.hungry = True

    def feed(self, data: bytes) -> bytes:
        data = self._left + data
        source = ctypes.create_string_buffer(data, max(1, len(data)))
        given = _Buffer(ctypes.addressof(source), len(data), 0)
        made = _Buffer(ctypes.addressof(self._output), _OUTPUT_BYTES, 0)
        left = self._lib.ZSTD_decompressStream(
            self._stream, ctypes.byref(made), ctypes.byref(given)
        )
        if self._lib.ZSTD_isError(left):
            raise _zstd_refusal(self._lib.ZSTD_getErrorName(left))
        self._left = data[given.position :]
        if left == 0:
            self.eof = True
            self.unused, self._left = self._left, b""
            self._lib.ZSTD_freeDStream(self._stream)
        self.hungry = not self._left and made.position < _OUTPUT_BYTES
        return self._output.raw[: made.position]


def _zstd_refusal(name: bytes) -> Refusal:
    """By libzstd's words (zstd_errors.h, error_private.c), which are the same since 1.0."""
    if b"too much memory" in name:
        return Refusal(
            "unsupported",
            "The zstd data were packed with a window of more than"
            f" {1 << _ZSTD_WINDOW_LOG_MAX >> 20} MiB, which isn't unpacked here: pack them again"
            f" with `zstd --long={_ZSTD_WINDOW_LOG_MAX}` or less.",
        )
    if b"ictionary" in name:
        return Refusal(
            "unsupported",
            "The zstd data need a dictionary that isn't among them: pack them without one.",
        )
    return _broken("zstd")


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _Gzip,
    "xz": _Xz,
    "zstd": _Zstd,
    "bzip2": _Bzip2,
}


def decoder(compression: str) -> Decoder:
    """A decoder of one member."""
    return DECODERS[compression]()


class _Sparse:
    """Writes blocks and leaves holes for those that are all zero."""

    def __init__(self, fd: int, limit_bytes: int) -> None:
        self._fd = fd
        self._limit = limit_bytes
        self._pending = bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._pending += data
        if self.size + len(self._pending) > self._limit:
            raise Refusal(
                "insufficient-space",
                f"Unpacked, it has more than the {self._limit} bytes that are free for it.",
            )
        whole = len(self._pending) - len(self._pending) % _BLOCK_BYTES
        self._put(bytes(self._pending[:whole]))
        del self._pending[:whole]

    def finish(self) -> None:
        self._put(bytes(self._pending))
        self._pending.clear()
        os.ftruncate(self._fd, self.size)

    def _put(self, data: bytes) -> None:
        for at in range(0, len(data), _BLOCK_BYTES):
            block = data[at : at + _BLOCK_BYTES]
            if block != _ZEROS:
                done = 0
                while done < len(block):
                    done += os.pwrite(self._fd, block[done:], self.size + done)
            self.size += len(block)


def unpack(source: int, target: int, compression: str, limit_bytes: int, report: Report) -> int:
    """Unpack all of `source` into the empty file `target`; returns the number of bytes.

    Raises Refusal: damaged, truncated, or larger than `limit_bytes`.
    """
    total = os.fstat(source).st_size
    out = _Sparse(target, limit_bytes)
    read = 0
    member: Decoder | None = None
    waiting = b""
    padding = 0
    while True:
        if member is None or member.hungry or member.eof:
            data = waiting or os.pread(source, _INPUT_BYTES, read)
            if not waiting:
                read += len(data)
            waiting = b""
        else:
            data = b""
        if member is None or member.eof:
            # Between members there may be zeros: padding of tapes and of xz streams.
            rest = data.lstrip(b"\0")
            padding += len(data) - len(rest)
            data = rest
            if not data:
                if read >= total:
                    break
                continue
            begin = _MEMBERS.get(compression)
            if begin is not None and member is not None:
                if len(data) < len(begin) and read < total:
                    waiting = data + os.pread(source, _INPUT_BYTES, read)
                    read += len(waiting) - len(data)
                    continue
                if not data.startswith(begin):
                    break  # gzip(1) and bzip2(1): "trailing garbage ignored"
            _check_padding(compression, padding)
            padding = 0
            member = decoder(compression)
        elif member.hungry and not data:
            raise Refusal("truncated", f"The {compression} data end too early.")
        out.write(member.feed(data))
        if member.eof:
            waiting = member.unused
        report.progress(read, total)
    if member is None:
        raise Refusal("truncated", f"There are no {compression} data, only zeros.")
    _check_padding(compression, padding)
    out.finish()
    return out.size


def _check_padding(compression: str, count: int) -> None:
    if compression == "xz" and count % _XZ_PADDING:
        raise _broken("xz")


def _broken(kind: str) -> Refusal:
    return Refusal(
        "invalid",
        f"The {kind} data are damaged, or other data follow them: they can't be unpacked to their"
        " end. Send them again, and test them before with the tool that packed them.",
    )


def main(argv: list[str]) -> int:
    def work(job: dict[str, Any]) -> dict[str, Any]:
        size = unpack(
            job["source"], job["target"], job["compression"], job["limit_bytes"], Report()
        )
        return {"size_bytes": size}

    return run(work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
