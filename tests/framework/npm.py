"""Packages from npm that tests use as outside clients: one file each, proven by its hash.

The registry is the one that this machine's npm is set to, or the environment names
(``NPM_CONFIG_REGISTRY``). If there is neither, the test says so and is left out: a machine without
npm needs none for Mica.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance_build.inputs.cache import cache_root

__all__ = ["NpmPackage", "node_modules", "unpacked_package"]

ANSWER_S = 60


@dataclass(frozen=True)
class NpmPackage:
    """A package's name, its version, and npm's `integrity` of its file (SHA-512 in base64)."""

    name: str
    version: str
    sha512: str


def node_modules(lock: Path, folder: Path) -> Path:
    """The packages of npm's lock file (`package-lock.json`) below `folder`, as npm has them."""
    for place, entry in json.loads(lock.read_bytes())["packages"].items():
        if not place:
            continue
        name = place.rpartition("node_modules/")[2]
        kind, _, digest = entry["integrity"].partition("-")
        assert kind == "sha512", f"{name} is not locked by SHA-512"
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            with tarfile.open(_fetched(NpmPackage(name, entry["version"], digest))) as archive:
                archive.extractall(temporary)
            # Nearly all are called `package` inside; some have a name of their own.
            (inside,) = Path(temporary).iterdir()
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            inside.rename(folder / place)
    return folder / "node_modules"


def unpacked_package(package: NpmPackage, folder: Path) -> Path:
    """The folder of a package's files, unpacked below `folder`, one for each package."""
    folder = folder / package.name
    folder.mkdir(parents=True)
    with tarfile.open(_fetched(package)) as archive:
        archive.extractall(folder)
    return folder / "package"


def _fetched(package: NpmPackage) -> Path:
    file = f"{package.name.rpartition('/')[2]}-{package.version}.tgz"  # the scope is not in it
    place = cache_root() / "npm" / Path(package.name).parent / file
    if place.exists() and _digest(place.read_bytes()) == package.sha512:
        return place
    url = f"{_registry()}/{package.name}/-/{place.name}"
    with urllib.request.urlopen(url, timeout=ANSWER_S) as reply:
        content = reply.read()
    assert _digest(content) == package.sha512, f"{url} is not the file that is locked"
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.rename(place)
    return place


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def _registry() -> str:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if named := os.environ.get(name):
            return named.rstrip("/")
    if (npm := shutil.which("npm")) is None:
        pytest.skip("there is no npm here; NPM_CONFIG_REGISTRY can name a registry")
    argv = [npm, "config", "get", "registry"]
    answer = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=ANSWER_S)
    return answer.stdout.strip().rstrip("/")
