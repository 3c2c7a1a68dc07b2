"""Turn a set's lock into files: by the committed lock, or by what the suites hold now."""

import json
from pathlib import Path

from appliance_build.inputs.archive import fetch_all
from appliance_build.inputs.cache import cache_root
from appliance_build.inputs.debian_lock import DebianLock, LockedPackage, differences
from appliance_build.inputs.debian_sets import PackageSet, load_sets
from appliance_build.inputs.errors import GoneError
from appliance_build.inputs.mirror import Mirrors, find_mirrors
from appliance_build.inputs.resolver import Resolver
from appliance_build.progress import say, step

__all__ = ["LOCK_FILE", "LockedSet", "obtain", "refresh_lock"]

LOCK_FILE = Path(__file__).parent / "debian.lock.json"
WISHES_FILE = Path(__file__).parent / "debian.lock.wishes.json"


class LockedSet:
    """A set with its packages; the files are fetched when they are asked for."""

    def __init__(self, name: str, packages: tuple[LockedPackage, ...]) -> None:
        self.name = name
        self.packages = packages
        self.digest = DebianLock({name: packages}).digest(name)

    def files(self) -> dict[LockedPackage, Path]:
        return fetch_all(self.packages, find_mirrors())


def _moved_on(name: str) -> Path:
    return cache_root() / f"moved-on-{name}.json"


def _committed(wanted: PackageSet) -> tuple[LockedPackage, ...]:
    lock = DebianLock.load(LOCK_FILE)
    wishes = json.loads(WISHES_FILE.read_text()) if WISHES_FILE.exists() else {}
    if wishes.get(wanted.name) != wanted.digest():
        return ()
    return lock.sets.get(wanted.name, ())


def obtain(name: str, report: Path | None = None) -> LockedSet:
    """Return a set whose files are all in the archive.

    The committed lock is followed. If the mirror has newer packages, those that differ are named,
    and the lock that was used instead is written to ``report``.
    """
    wanted = load_sets()[name]
    packages = _committed(wanted)
    if packages:
        try:
            fetch_all(packages, find_mirrors())
            return LockedSet(name, packages)
        except GoneError as error:
            say(f"the mirror no longer has, and the archive never had: {error}")
            say(f"going on with what the suites hold now for the set {name}")
    mirrors: Mirrors = find_mirrors()
    with step(f"asking apt for the packages of the set {name}"):
        fresh = Resolver(mirrors).resolve(wanted)
    for package, old, new in differences(packages, fresh) if packages else []:
        say(f"  {package}: locked {old}, now {new}")
    fetch_all(fresh, mirrors)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(DebianLock.load(report).with_set(name, fresh).text())
        say(f"the lock in use was written to {report}")
    return LockedSet(name, fresh)


def refresh_lock() -> None:
    """Write the committed lock again from the suites' present content (`scons lock`)."""
    lock = DebianLock.load(LOCK_FILE)
    resolver = Resolver(find_mirrors())
    wishes = {}
    for name, wanted in load_sets().items():
        with step(f"resolving the set {name}"):
            fresh = resolver.resolve(wanted)
        for package, old, new in differences(lock.sets.get(name, ()), fresh):
            say(f"  {package}: {old} -> {new}")
        lock = lock.with_set(name, fresh)
        wishes[name] = wanted.digest()
    lock = DebianLock({name: lock.sets[name] for name in wishes})
    LOCK_FILE.write_text(lock.text())
    WISHES_FILE.write_text(json.dumps(wishes, indent=1, sort_keys=True) + "\n")
