"""Which Debian package, or which wheel, a file belongs to; read from dpkg's and pip's records."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

__all__ = ["DebianPackage", "DebianPackages", "Wheel", "Wheels"]


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """An installed binary package, from dpkg's status file."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str


class DebianPackages:
    """The dpkg database of one donor tree."""

    def __init__(self, root: Path) -> None:
        self.packages: dict[str, DebianPackage] = {}
        self._owner: dict[str, str] = {}
        status = root / "var/lib/dpkg/status"
        if status.exists():
            self._read_status(status)
        self._read_lists(root / "var/lib/dpkg/info")

    def _read_status(self, status: Path) -> None:
        for block in status.read_text(encoding="utf-8").split("\n\n"):
            fields = HeaderParser().parsestr(block)
            name, version = fields.get("Package"), fields.get("Version")
            if not name or not version:
                continue
            source, _, rest = (fields.get("Source") or name).partition(" ")
            self.packages[name] = DebianPackage(
                name,
                version,
                fields.get("Architecture", "all"),
                source,
                rest.strip("() ") or version,
            )

    def _read_lists(self, info: Path) -> None:
        for listing in sorted(info.glob("*.list")) if info.is_dir() else []:
            package = listing.name[: -len(".list")].split(":")[0]
            for line in listing.read_text(encoding="utf-8").splitlines():
                self._owner.setdefault(_merged(line), package)

    def owner(self, path: str) -> DebianPackage | None:
        """The package that ships the image's `path`, whether named by /lib or /usr/lib."""
        name = self._owner.get(_merged(path))
        return self.packages.get(name) if name else None


def _merged(path: str) -> str:
    for top in ("/bin/", "/sbin/", "/lib/", "/lib64/"):
        if path.startswith(top):
            return "/usr" + path
    return path


@dataclass(frozen=True, slots=True)
class Wheel:
    """An unpacked wheel: its name, version and licence from its METADATA."""

    name: str
    version: str
    licence: str
    homepage: str


class Wheels:
    """The unpacked wheels of one directory."""

    def __init__(self, base: Path) -> None:
        self.wheels: dict[str, Wheel] = {}
        self._owner: dict[str, str] = {}
        for info in sorted(base.glob("*.dist-info")):
            self._read(info)

    def _read(self, info: Path) -> None:
        metadata = HeaderParser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
        name = metadata["Name"]
        licence = metadata.get("License-Expression") or metadata.get("License") or ""
        classifiers = metadata.get_all("Classifier") or []
        if not licence or "\n" in licence or len(licence) > 80:
            found = [c.rsplit(" :: ", 1)[1] for c in classifiers if c.startswith("License ::")]
            licence = " AND ".join(found) or licence.split("\n", 1)[0][:80]
        homepage = metadata.get("Home-page") or ""
        for url in metadata.get_all("Project-URL") or []:
            label, _, target = url.partition(",")
            if not homepage and label.strip().lower() in ("homepage", "repository", "source"):
                homepage = target.strip()
        self.wheels[name] = Wheel(name, metadata["Version"], licence, homepage)
        with (info / "RECORD").open(encoding="utf-8", newline="") as record:
            for row in csv.reader(record):
                if row:
                    self._owner[row[0]] = name

    def owner(self, inner: str) -> Wheel | None:
        """The wheel that ships `inner` (a path relative to the wheels directory)."""
        name = self._owner.get(inner)
        return self.wheels[name] if name else None
