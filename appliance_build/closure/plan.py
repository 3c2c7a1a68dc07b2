"""The plan: which paths the image holds, where each comes from, and why.

A plan is what :func:`appliance_build.closure.compute` returns and what
:func:`appliance_build.closure.materialise` writes out. It is plain data and saves as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = ["Addition", "BootFile", "Entry", "EntryKind", "Origin", "Plan", "Reason"]

PLAN_SCHEMA = 1


class EntryKind(StrEnum):
    """What a path of the image is."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"
    GENERATED = "generated"


class Origin(StrEnum):
    """Which input a path comes from."""

    DONOR = "debian"
    WHEEL = "wheel"
    OWN = "mica"
    OVERLAY = "overlay"
    GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class Addition:
    """A file made by another build step that shall be in the image."""

    path: str
    source: Path
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """Why a path is in the image: `rule` found `of` to need it; `note` says how."""

    rule: str
    of: str
    note: str


@dataclass(slots=True)
class Entry:
    """One path of the image.

    `source` is the file on the build machine (for FILE), `generator` the name of what makes
    it (for GENERATED), `target` the text of a symbolic link. `reasons[0]` is the first reason
    found, which gives the shortest chain to a root, for the search goes in breadth.
    """

    path: str
    kind: EntryKind
    origin: Origin
    mode: int
    source: Path | None = None
    target: str | None = None
    generator: str | None = None
    content: bytes | None = None
    package: str | None = None
    version: str | None = None
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file of the boot image that is not in the root tree: kernel, microcode, /init, …"""

    path: str
    """Its path in the initrd, or in its Debian package."""
    source: Path
    origin: Origin
    reason: Reason
    package: str | None = None
    version: str | None = None


@dataclass(slots=True)
class Plan:
    """The computed allow-list."""

    entries: dict[str, Entry]
    kernel_release: str
    microcode: list[Path]
    kernel_image: Path | None
    enabled_units: list[tuple[str, str]]
    firmware_waived: dict[str, str]
    notes: list[str]
    donors: tuple[Path, ...]
    wheels: Path | None
    boot: list[BootFile] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """The plan as JSON data, in a fixed order."""
        return {
            "schema": PLAN_SCHEMA,
            "kernel_release": self.kernel_release,
            "kernel_image": str(self.kernel_image) if self.kernel_image else None,
            "microcode": [str(path) for path in self.microcode],
            "enabled_units": [list(pair) for pair in sorted(self.enabled_units)],
            "firmware_waived": dict(sorted(self.firmware_waived.items())),
            "notes": self.notes,
            "boot": [_boot_json(file) for file in self.boot],
            "files": [_entry_json(self.entries[path]) for path in sorted(self.entries)],
        }

    def save(self, target: Path) -> None:
        """Write the plan as JSON."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")


def _boot_json(file: BootFile) -> dict[str, object]:
    data: dict[str, object] = {"path": file.path, "origin": file.origin.value}
    if file.package is not None:
        data |= {"package": file.package, "version": file.version}
    reason = file.reason
    return {**data, "source": str(file.source), "reason": [reason.rule, reason.of, reason.note]}


def _entry_json(entry: Entry) -> dict[str, object]:
    data: dict[str, object] = {
        "path": entry.path,
        "kind": entry.kind.value,
        "origin": entry.origin.value,
        "mode": f"{entry.mode:04o}",
    }
    for name in ("target", "generator", "package", "version"):
        value = getattr(entry, name)
        if value is not None:
            data[name] = value
    if entry.source is not None:
        data["source"] = str(entry.source)
    data["reasons"] = [[r.rule, r.of, r.note] for r in entry.reasons]
    return data
