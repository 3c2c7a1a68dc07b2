"""The Debian lock: which .debs, by version and SHA-256, make each set of packages."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from appliance_build.inputs.errors import LockError

__all__ = ["DebianLock", "LockedPackage", "differences"]

SCHEMA = 1


@dataclass(frozen=True, order=True)
class LockedPackage:
    """One .deb: what it is, and its place in the archive when it was locked."""

    name: str
    version: str
    architecture: str
    archive: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DebianLock:
    """The packages of every set, sorted by name."""

    sets: Mapping[str, tuple[LockedPackage, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "DebianLock":
        """Read a lock file."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        except ValueError as error:
            raise LockError(f"{path}: not JSON ({error}); `scons lock` makes it anew") from error
        if data.get("schema") != SCHEMA:
            raise LockError(f"{path}: schema {data.get('schema')!r}, this build reads {SCHEMA}")
        return cls(
            {
                name: tuple(sorted(LockedPackage(**package) for package in packages))
                for name, packages in data["sets"].items()
            }
        )

    def text(self) -> str:
        """Return the file's text: one package a line, so that a diff reads well."""
        parts = []
        for name in sorted(self.sets):
            lines = ",\n".join(
                "   " + json.dumps(asdict(package)) for package in sorted(self.sets[name])
            )
            parts.append(f'  "{name}": [\n{lines}\n  ]')
        body = ",\n".join(parts)
        return f'{{\n "schema": {SCHEMA},\n "sets": {{\n{body}\n }}\n}}\n'

    def with_set(self, name: str, packages: tuple[LockedPackage, ...]) -> "DebianLock":
        """Return a lock with one set replaced."""
        return DebianLock({**self.sets, name: tuple(sorted(packages))})

    def digest(self, name: str) -> str:
        """Return a short hash that changes with any package of a set."""
        lines = "".join(f"{p.name} {p.version} {p.sha256}\n" for p in sorted(self.sets[name]))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


def differences(
    old: tuple[LockedPackage, ...], new: tuple[LockedPackage, ...]
) -> list[tuple[str, str, str]]:
    """Return ``(name, old version, new version)`` of what differs; ``-`` if there is none."""
    before = {package.name: package.version for package in old}
    after = {package.name: package.version for package in new}
    return [
        (name, before.get(name, "-"), after.get(name, "-"))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
