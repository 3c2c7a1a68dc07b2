"""What an ELF file says of itself, read with pyelftools; pure reading, no policy."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from appliance_build.closure.errors import BadElfError

__all__ = ["DlopenNote", "DlopenPriority", "ElfFile", "Segment", "is_elf", "read_elf", "section"]

_MAGIC = b"\x7fELF"
_DLOPEN_NOTE_TYPE = 0x407C0C0A
_PF_X, _PF_W = 1, 2


class DlopenPriority(StrEnum):
    """How much the file wants what it loads at run time."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    SUGGESTED = "suggested"


@dataclass(frozen=True, slots=True)
class DlopenNote:
    """One entry of ``.note.dlopen``: any one of `sonames` serves `feature`."""

    feature: str
    description: str
    priority: DlopenPriority
    sonames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: its type and whether it is writable and executable."""

    kind: str
    writable: bool
    executable: bool


@dataclass(frozen=True, slots=True)
class ElfFile:
    """The facts of one ELF file that loading it depends on."""

    kind: str  # ET_EXEC, ET_DYN, ET_REL…
    bits: int
    machine: str
    interpreter: str | None
    soname: str | None
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    versions_needed: tuple[tuple[str, tuple[str, ...]], ...]  # (library, versions not weak)
    versions_defined: frozenset[str]
    dlopen_notes: tuple[DlopenNote, ...]
    segments: tuple[Segment, ...]


def is_elf(path: Path) -> bool:
    """Whether the file starts with ELF's magic number."""
    with path.open("rb") as stream:
        return stream.read(4) == _MAGIC


def read_elf(path: Path) -> ElfFile:
    """Read one ELF file."""
    with path.open("rb") as stream:
        try:
            return _read(ELFFile(stream))
        except (ELFError, struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
            raise BadElfError(f"{path}: not a readable ELF file: {error}") from error


def section(data: bytes, name: str) -> bytes:
    """The content of a named section of an ELF file held in memory; empty if there is none."""
    try:
        found = ELFFile(io.BytesIO(data)).get_section_by_name(name)
        return b"" if found is None else bytes(found.data())
    except (ELFError, struct.error) as error:
        raise BadElfError(f"section {name}: not a readable ELF file: {error}") from error


def _read(elf: Any) -> ElfFile:
    interpreter: str | None = None
    soname: str | None = None
    needed: list[str] = []
    rpath: list[str] = []
    runpath: list[str] = []
    segments: list[Segment] = []
    for segment in elf.iter_segments():
        flags = segment["p_flags"]
        segments.append(Segment(str(segment["p_type"]), bool(flags & _PF_W), bool(flags & _PF_X)))
        if segment["p_type"] == "PT_INTERP":
            interpreter = segment.get_interp_name()
        if isinstance(segment, DynamicSegment):
            tags: Any = segment.iter_tags()
            for tag in tags:
                match tag.entry.d_tag:
                    case "DT_NEEDED":
                        needed.append(tag.needed)
                    case "DT_SONAME":
                        soname = tag.soname
                    case "DT_RPATH":
                        rpath += tag.rpath.split(":")
                    case "DT_RUNPATH":
                        runpath += tag.runpath.split(":")
    needs: list[tuple[str, tuple[str, ...]]] = []
    defines: set[str] = set()
    notes: list[DlopenNote] = []
    for part in elf.iter_sections():
        if isinstance(part, GNUVerNeedSection):
            for library, versions in part.iter_versions():
                hard = tuple(v.name for v in versions if not v["vna_flags"] & 2)
                needs.append((str(library.name), hard))
        elif isinstance(part, GNUVerDefSection):
            for _, names in part.iter_versions():
                first = next(iter(names), None)
                if first is not None:
                    defines.add(first.name)
        elif part.name == ".note.dlopen":
            notes += _dlopen_notes(part.data(), elf.little_endian)
    return ElfFile(
        kind=str(elf["e_type"]),
        bits=elf.elfclass,
        machine=str(elf["e_machine"]),
        interpreter=interpreter,
        soname=soname,
        needed=tuple(needed),
        rpath=tuple(rpath),
        runpath=tuple(runpath),
        versions_needed=tuple(needs),
        versions_defined=frozenset(defines),
        dlopen_notes=tuple(notes),
        segments=tuple(segments),
    )


def _dlopen_notes(data: bytes, little_endian: bool) -> list[DlopenNote]:
    order = "<" if little_endian else ">"
    notes: list[DlopenNote] = []
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from(f"{order}III", data, at)
        at += 12 + (name_size + 3) // 4 * 4
        if kind == _DLOPEN_NOTE_TYPE:
            text = data[at : at + size].rstrip(b"\0").decode("utf-8")
            for item in json.loads(text):
                notes.append(
                    DlopenNote(
                        feature=item.get("feature", ""),
                        description=item.get("description", ""),
                        priority=DlopenPriority(item.get("priority", "recommended")),
                        sonames=tuple(item["soname"]),
                    )
                )
        at += (size + 3) // 4 * 4
    return notes
