"""The archive of .debs: files named by their SHA-256, fetched once, checked on each use.

A locked version that has left the mirror still builds as long as the archive has it.
"""

import contextlib
import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from appliance_build.inputs.cache import cache_root
from appliance_build.inputs.debian_lock import LockedPackage
from appliance_build.inputs.errors import GoneError, HashError, MirrorError
from appliance_build.inputs.mirror import Mirrors
from appliance_build.inputs.run import run
from appliance_build.progress import say

__all__ = ["fetch_all", "file_digest", "make_repository"]

ATTEMPTS = 3
PARALLEL = 4


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(package: LockedPackage) -> Path:
    return cache_root() / "debs" / package.sha256[:2] / f"{package.sha256}.deb"


def _download(package: LockedPackage, url: str, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, temporary.open("wb") as file:  # noqa: S310
            while block := reply.read(1 << 20):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != package.sha256:
            raise HashError(
                f"{url}: SHA-256 is {digest.hexdigest()}, the lock says {package.sha256}"
            )
        temporary.rename(place)
    finally:
        temporary.unlink(missing_ok=True)


def _fetch(package: LockedPackage, mirrors: Mirrors) -> Path:
    place = _place(package)
    if place.exists():
        if place.stat().st_size == package.size and file_digest(place) == package.sha256:
            return place
        say(f"{package.name} in the archive is damaged; fetching it again")
        place.unlink()
    url = f"{mirrors.base(package.archive)}/{package.path}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download(package, url, place)
            return place
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise GoneError(f"{package.name} {package.version}") from error
            failure: Exception = error
        except (OSError, HashError) as error:
            failure = error
        if attempt < ATTEMPTS:
            say(f"{package.name}: {failure}; trying again")
            time.sleep(2 * attempt)
    raise MirrorError(f"{url}: {failure}") from failure


def fetch_all(packages: Sequence[LockedPackage], mirrors: Mirrors) -> dict[LockedPackage, Path]:
    """Return the checked file of every package, or name all that have left the mirror."""
    wanted = [package for package in packages if not _place(package).exists()]
    if wanted:
        megabytes = sum(package.size for package in wanted) / 1e6
        say(f"fetching {len(wanted)} Debian packages, {megabytes:.0f} MB")
    found: dict[LockedPackage, Path] = {}
    missing: list[str] = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [(package, pool.submit(_fetch, package, mirrors)) for package in packages]
        last = time.monotonic()
        for count, (package, future) in enumerate(futures, 1):
            try:
                found[package] = future.result()
            except GoneError as error:
                missing.append(str(error))
            if wanted and time.monotonic() - last > 10:
                say(f"{count} of {len(packages)} packages are here")
                last = time.monotonic()
    if missing:
        raise GoneError(", ".join(missing))
    return found


def make_repository(files: dict[LockedPackage, Path], folder: Path) -> None:
    """Make an apt repository (suite ``locked``) that holds exactly these packages."""
    if folder.exists():
        shutil.rmtree(folder)
    pool = folder / "pool"
    index = folder / "dists/locked/main/binary-amd64/Packages"
    pool.mkdir(parents=True)
    index.parent.mkdir(parents=True)
    stanzas = []
    for package, source in sorted(files.items()):
        name = f"{package.name}_{package.version.split(':')[-1]}_{package.architecture}.deb"
        target = pool / name
        with contextlib.suppress(OSError):
            os.link(source, target)
        if not target.exists():
            shutil.copyfile(source, target)
        control = run(["dpkg-deb", "--field", source], timeout_s=60).strip()
        stanzas.append(
            f"{control}\nFilename: pool/{name}\nSize: {package.size}\nSHA256: {package.sha256}\n"
        )
    index.write_text("\n".join(stanzas))
    (folder / "dists/locked/Release").write_text(
        "Origin: Mica\nLabel: Mica\nSuite: locked\nCodename: locked\nArchitectures: amd64 all\n"
        "Components: main\nSHA256:\n"
        f" {file_digest(index)} {index.stat().st_size} main/binary-amd64/Packages\n"
    )
