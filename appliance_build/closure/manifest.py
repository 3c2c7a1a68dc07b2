"""The manifest: every path of the finished tree with size, hash, origin and reasons.

Schema 1 of ``manifest.json``::

    {"schema": 1, "kernel_release": "…", "enabled_units": [[unit, by], …],
     "firmware_waived": {name: reason}, "totals": {…}, "notes": [...],
     "files": [{"path", "kind": file|link|directory, "mode", "size", "sha256", "target",
                "origin": debian|wheel|mica|overlay|generated, "package", "version",
                "reasons": [[rule, of, note], …]}, …],
     "boot": [the same for what is beside the root tree: kernel, microcode, /init, …]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance_build.closure.errors import ClosureError

__all__ = ["Manifest", "ManifestFile", "explain"]

MANIFEST_SCHEMA = 1
_ROOT_RULES = frozenset(
    {
        "addition",
        "boot",
        "bundle",
        "bundle-firmware",
        "bundle-microcode",
        "enablement",
        "overlay",
        "root",
    }
)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One path of the finished tree."""

    path: str
    kind: str
    mode: str
    origin: str
    reasons: tuple[tuple[str, str, str], ...]
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    package: str | None = None
    version: str | None = None

    def to_json(self) -> dict[str, object]:
        """The path as JSON data, fields without a value left out."""
        data: dict[str, object] = {"path": self.path, "kind": self.kind, "mode": self.mode}
        for name in ("size", "sha256", "target", "origin", "package", "version"):
            value = getattr(self, name)
            if value is not None:
                data[name] = value
        data["reasons"] = [list(reason) for reason in self.reasons]
        return data


@dataclass(slots=True)
class Manifest:
    """The manifest of one image."""

    files: dict[str, ManifestFile]
    kernel_release: str
    enabled_units: list[tuple[str, str]]
    firmware_waived: dict[str, str]
    notes: list[str] = field(default_factory=list)
    boot: dict[str, ManifestFile] = field(default_factory=dict)

    def totals(self) -> dict[str, dict[str, int]]:
        """Files and bytes by part of the image."""
        totals: dict[str, dict[str, int]] = {}
        for file in self.files.values():
            if file.kind != "file":
                continue
            part = totals.setdefault(part_of(file.path), {"files": 0, "bytes": 0})
            part["files"] += 1
            part["bytes"] += file.size or 0
        return dict(sorted(totals.items()))

    def to_json(self) -> dict[str, object]:
        """The manifest as JSON data, in a fixed order."""
        return {
            "schema": MANIFEST_SCHEMA,
            "kernel_release": self.kernel_release,
            "enabled_units": [list(pair) for pair in sorted(self.enabled_units)],
            "firmware_waived": dict(sorted(self.firmware_waived.items())),
            "totals": self.totals(),
            "notes": self.notes,
            "files": [self.files[path].to_json() for path in sorted(self.files)],
            "boot": [self.boot[path].to_json() for path in sorted(self.boot)],
        }

    def save(self, target: Path) -> None:
        """Write the manifest as JSON."""
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        target.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, source: Path) -> Manifest:
        data: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
        if data.get("schema") != MANIFEST_SCHEMA:
            raise ClosureError(f"{source}: schema {data.get('schema')} is not {MANIFEST_SCHEMA}")
        return cls(
            files=_files(data["files"]),
            kernel_release=data["kernel_release"],
            enabled_units=[(unit, by) for unit, by in data["enabled_units"]],
            firmware_waived=data["firmware_waived"],
            notes=data["notes"],
            boot=_files(data.get("boot", [])),
        )


def _files(items: list[dict[str, Any]]) -> dict[str, ManifestFile]:
    files = {}
    for item in items:
        reasons = tuple((r[0], r[1], r[2]) for r in item.pop("reasons"))
        files[item["path"]] = ManifestFile(**item, reasons=reasons)
    return files


def part_of(path: str) -> str:
    """The part of the image a path is counted to, for the size reports."""
    parts = {
        "/usr/lib/modules/": "kernel modules",
        "/usr/lib/firmware/": "firmware",
        "/usr/lib/mica/python/": "our packages and wheels",
        "/usr/lib/python3": "python standard library",
        "/usr/bin/python3": "python standard library",
        "/usr/share/OVMF/": "guest firmware",
        "/usr/share/ovmf/": "guest firmware",
        "/usr/share/qemu/": "guest firmware",
        "/usr/share/seabios/": "guest firmware",
        "/usr/lib/ipxe/": "guest firmware",
        "/usr/bin/qemu": "qemu programs",
        "/usr/lib/systemd/": "systemd",
        "/usr/lib/udev/": "systemd",
    }
    for prefix, part in parts.items():
        if path.startswith(prefix):
            return part
    if ".so" in path and path.startswith("/usr/lib/"):
        return "shared libraries"
    return "other"


def explain(manifest: Manifest, path: str) -> list[str]:
    """The chain of reasons from a root to `path`, as lines; the root comes first."""
    file: ManifestFile | None = _find(manifest, path)
    lines: list[str] = []
    seen: set[str] = set()
    while file is not None and file.path not in seen:
        seen.add(file.path)
        rule, of, note = _best(file, seen, manifest)
        origin = f"{file.package} {file.version}" if file.package else file.origin
        lines.append(f"{file.path}  [{origin}]")
        lines.append(f"    {rule}: {of}: {note}" if rule in _ROOT_RULES else f"    {rule}: {note}")
        file = None if rule in _ROOT_RULES else manifest.files.get(of)
    steps = [lines[i : i + 2] for i in range(0, len(lines), 2)]
    return [line for step in reversed(steps) for line in step]


def _find(manifest: Manifest, path: str) -> ManifestFile:
    """The file of that path, also by its name before it was compiled, unpacked or merged."""
    for name in (path, f"/usr{path}"):
        for candidate in (name, f"{name}c", f"{name}.xz", name.removesuffix(".xz")):
            if candidate in manifest.files:
                return manifest.files[candidate]
    if path in manifest.boot:
        return manifest.boot[path]
    last = path.rsplit("/", 1)[-1]
    known = sorted({*manifest.files, *manifest.boot})
    alike = [name for name in known if name.rsplit("/", 1)[-1].startswith(last)]
    hint = f"; there is {', '.join(alike[:5])}" if alike else ""
    raise ClosureError(f"{path}: is not in the image{hint}")


def _best(file: ManifestFile, seen: set[str], manifest: Manifest) -> tuple[str, str, str]:
    for reason in file.reasons:
        if reason[0] in _ROOT_RULES:
            return reason
    for reason in file.reasons:
        if reason[1] in manifest.files and reason[1] not in seen:
            return reason
    return file.reasons[0]
