"""Makes small ELF files byte by byte, for tests that need one with a certain property."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

__all__ = ["ElfSample", "dlopen_note", "modinfo_object"]

_HEADER = 64
_PROGRAM_HEADER = 56
_SECTION_HEADER = 64
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_GNU_STACK = 1, 2, 3, 0x6474E551
_SHT_PROGBITS, _SHT_STRTAB, _SHT_DYNAMIC, _SHT_NOTE = 1, 3, 6, 7
_SHT_VERDEF, _SHT_VERNEED = 0x6FFFFFFD, 0x6FFFFFFE
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29


class _Strings:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


@dataclass
class ElfSample:
    """What the ELF file shall say of itself; :meth:`build` gives its bytes."""

    needed: list[str] = field(default_factory=list)
    soname: str | None = None
    runpath: str | None = None
    rpath: str | None = None
    interpreter: str | None = None
    load_flags: int = 5
    stack_flags: int | None = 6
    versions_needed: dict[str, list[str]] = field(default_factory=dict)
    versions_defined: list[str] = field(default_factory=list)
    note: bytes = b""
    extra: bytes = b""
    kind: int = 3  # ET_DYN

    def build(self) -> bytes:
        strings = _Strings()
        dynamic = self._dynamic(strings)
        need = self._versions_needed(strings)
        define = self._versions_defined(strings)
        parts: list[tuple[str, int, bytes, int, int]] = [
            (".dynstr", _SHT_STRTAB, bytes(strings.data), 0, 0),
            (".dynamic", _SHT_DYNAMIC, b"", 1, 0),
        ]
        if need:
            parts.append((".gnu.version_r", _SHT_VERNEED, need, 1, len(self.versions_needed)))
        if define:
            parts.append((".gnu.version_d", _SHT_VERDEF, define, 1, len(self.versions_defined)))
        if self.note:
            parts.append((".note.dlopen", _SHT_NOTE, self.note, 0, 0))
        if self.interpreter:
            parts.append((".interp", _SHT_PROGBITS, self.interpreter.encode() + b"\0", 0, 0))
        if self.extra:
            parts.append((".rodata", _SHT_PROGBITS, self.extra, 0, 0))
        segments = 2 + (self.interpreter is not None) + (self.stack_flags is not None)
        start = _HEADER + segments * _PROGRAM_HEADER
        # The dynamic section needs the place of the strings, which come first.
        dynamic += [(_DT_STRTAB, start), (_DT_STRSZ, len(strings.data)), (0, 0)]
        packed = b"".join(struct.pack("<QQ", tag, value) for tag, value in dynamic)
        parts[1] = (".dynamic", _SHT_DYNAMIC, packed, 1, 0)
        return _assemble(self, parts, start, segments)

    def _dynamic(self, strings: _Strings) -> list[tuple[int, int]]:
        tags = [(_DT_NEEDED, strings.add(name)) for name in self.needed]
        for tag, text in (
            (_DT_SONAME, self.soname),
            (_DT_RPATH, self.rpath),
            (_DT_RUNPATH, self.runpath),
        ):
            if text is not None:
                tags.append((tag, strings.add(text)))
        return tags

    def _versions_needed(self, strings: _Strings) -> bytes:
        data = b""
        libraries = list(self.versions_needed.items())
        for at, (library, versions) in enumerate(libraries):
            size = 16 + 16 * len(versions)
            last = at == len(libraries) - 1
            name = strings.add(library)
            data += struct.pack("<HHIII", 1, len(versions), name, 16, 0 if last else size)
            for index, version in enumerate(versions):
                step = 0 if index == len(versions) - 1 else 16
                data += struct.pack("<IHHII", 0, 0, index + 2, strings.add(version), step)
        return data

    def _versions_defined(self, strings: _Strings) -> bytes:
        data = b""
        for at, version in enumerate(self.versions_defined):
            step = 0 if at == len(self.versions_defined) - 1 else 28
            data += struct.pack("<HHHHIII", 1, 0, at + 1, 1, 0, 20, step)
            data += struct.pack("<II", strings.add(version), 0)
        return data


def dlopen_note(text: str) -> bytes:
    """A ``.note.dlopen`` section that holds `text`."""
    body = text.encode() + b"\0"
    padded = body + b"\0" * (-len(body) % 4)
    return struct.pack("<III", 4, len(body), 0x407C0C0A) + b"FDO\0" + padded


def modinfo_object(fields: list[tuple[str, str]], *, signed: bool = True) -> bytes:
    """A relocatable object with a ``.modinfo`` section and a signature's mark, as a module is."""
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in fields)
    sample = ElfSample(kind=1)
    module = _assemble(sample, [(".modinfo", _SHT_PROGBITS, info, 0, 0)], _HEADER, 0)
    return module + (b"~Module signature appended~\n" if signed else b"")


def _assemble(
    sample: ElfSample,
    parts: list[tuple[str, int, bytes, int, int]],
    start: int,
    segments: int,
) -> bytes:
    names = _Strings()
    body = b""
    places: dict[str, tuple[int, int]] = {}
    headers = [struct.pack("<IIQQQQIIQQ", *(0,) * 10)]
    for name, kind, data, link, info in parts:
        body += b"\0" * (-(start + len(body)) % 8)
        at = start + len(body)
        places[name] = (at, len(data))
        entry = 16 if kind == _SHT_DYNAMIC else 0
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ", names.add(name), kind, 2, at, at, len(data), link, info, 8, entry
            )
        )
        body += data
    at = start + len(body)
    label = names.add(".shstrtab")
    headers.append(
        struct.pack("<IIQQQQIIQQ", label, _SHT_STRTAB, 0, 0, at, len(names.data), 0, 0, 1, 0)
    )
    body += bytes(names.data)
    table = start + len(body)
    total = table + len(headers) * _SECTION_HEADER
    programs = b""
    if segments:
        programs += _program(_PT_LOAD, sample.load_flags, 0, total)
        programs += _program(_PT_DYNAMIC, 6, *places[".dynamic"])
        if sample.interpreter is not None:
            programs += _program(_PT_INTERP, 4, *places[".interp"])
        if sample.stack_flags is not None:
            programs += _program(_PT_GNU_STACK, sample.stack_flags, 0, 0)
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    header += struct.pack(
        "<HHIQQQIHHHHHH",
        sample.kind,
        62,
        1,
        0,
        _HEADER if segments else 0,
        table,
        0,
        _HEADER,
        _PROGRAM_HEADER,
        segments,
        _SECTION_HEADER,
        len(headers),
        len(headers) - 1,
    )
    return header + programs + body + b"".join(headers)


def _program(kind: int, flags: int, at: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, 8)
