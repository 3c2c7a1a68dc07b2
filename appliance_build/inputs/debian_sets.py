"""Read ``debian.toml``: the wanted packages of each set."""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from appliance_build.inputs.errors import LockError

__all__ = ["DEBIAN_TOML", "PackageSet", "load_sets"]

DEBIAN_TOML = Path(__file__).parent / "debian.toml"


@dataclass(frozen=True)
class PackageSet:
    """The requested packages; apt finds their dependencies."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    whole_system: bool
    """With the essential packages and apt, so that it can be unpacked into a system."""

    def digest(self) -> str:
        """Return a short hash of the wish list: a lock made for another one is of no use."""
        text = repr((self.suites, self.packages, self.whole_system))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_sets(path: Path = DEBIAN_TOML) -> dict[str, PackageSet]:
    """Return the sets by name."""
    try:
        data = tomllib.loads(path.read_text())
        return {
            name: PackageSet(
                name=name,
                suites=tuple(body["suites"]),
                packages=tuple(body["packages"]),
                whole_system=bool(body.get("whole_system", True)),
            )
            for name, body in data["sets"].items()
        }
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise LockError(f"{path}: {error}") from error
