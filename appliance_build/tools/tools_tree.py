"""Make the tools tree from its locked packages, once, and find it again."""

import os
import shutil
import tempfile
from pathlib import Path

from appliance_build.inputs.archive import make_repository
from appliance_build.inputs.cache import (
    cache_root,
    locked,
    mark_tree,
    remove_tree,
    tree_is_sound,
)
from appliance_build.inputs.locked_set import LockedSet, obtain
from appliance_build.inputs.run import run
from appliance_build.progress import say, step

__all__ = [
    "tools_tree",
    "unpacked_browser",
    "unpacked_generators",
    "unpacked_guests",
    "unpacked_provisioning",
    "viewers_tree",
]

RECIPE = "2"
"""Raised when the way a tree is made changes, so that old trees are not taken for new."""

LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")


def _mmdebstrap(packages: LockedSet, tree: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="repository-", dir=cache_root()) as folder:
        repository = Path(folder) / "apt"
        make_repository(packages.files(), repository)
        argv: list[str | Path] = [
            "mmdebstrap",
            "--mode=root",
            "--variant=apt",
            "--architectures=amd64",
            "--aptopt=APT::Install-Recommends false",
            "--aptopt=APT::Sandbox::User root",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            f"--include={','.join(package.name for package in packages.packages)}",
            "locked",
            tree,
            f"deb [trusted=yes] copy:{repository} locked main",
        ]
        run(argv, timeout_s=1800)
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / name, ignore_errors=True)


def _installed(what: str, packages: LockedSet, tree: Path) -> Path:
    """Return a tree in which packages are installed, made now if the cache has no sound one."""
    with locked(what):
        if tree_is_sound(tree):
            return tree
        remove_tree(tree)
        if os.geteuid() != 0:
            say(f"making the {what} needs root")
        temporary = tree.with_name(tree.name + ".new")
        remove_tree(temporary)
        with step(f"making the {what} of {len(packages.packages)} packages (about a minute)"):
            _mmdebstrap(packages, temporary)
        temporary.rename(tree)
        mark_tree(tree)
    return tree


def tools_tree(report: Path | None = None) -> Path:
    packages = obtain("tools", report)
    return _installed("tools tree", packages, cache_root() / f"tools-{packages.digest}-{RECIPE}")


def _unpacked(name: str, what: str, packages: tuple[LockedSet, ...]) -> Path:
    """Return a tree of packages that are unpacked and not installed."""
    tree = cache_root() / "-".join([name, *(package_set.digest for package_set in packages)])
    with locked(what):
        if tree_is_sound(tree):
            return tree
        remove_tree(tree)
        temporary = tree.with_name(tree.name + ".new")
        remove_tree(temporary)
        temporary.mkdir(parents=True)
        with step(f"unpacking the {what}"):
            for package_set in packages:
                for path in package_set.files().values():
                    run(["dpkg-deb", "--extract", path, temporary], timeout_s=300)
        temporary.rename(tree)
        mark_tree(tree)
    return tree


def unpacked_guests(report: Path | None = None) -> Path:
    """Return the tree with the test guests (Debian's installer), unpacked and not installed."""
    return _unpacked("guests", "test guests", (obtain("guests", report),))


def unpacked_browser() -> Path:
    """Return the tree with a browser and noVNC; ToolsSandbox runs what is in it."""
    return _unpacked("browser", "browser for tests", (obtain("browser"), obtain("novnc")))


def unpacked_generators() -> Path:
    """Return the tree with Java, Node.js and Go; ToolsSandbox runs what is in it."""
    return _unpacked("generators", "tools of API clients", (obtain("generators"),))


def unpacked_provisioning() -> Path:
    """Return the tree with cloud-init, what it imports, and QEMU's guest agent."""
    return _unpacked("provisioning", "programs inside a guest", (obtain("provisioning"),))


def viewers_tree() -> Path:
    """Return the tree with VNC viewers and Xvfb; ToolsSandbox runs what is in it."""
    packages = obtain("viewers")
    tree = cache_root() / f"viewers-{packages.digest}-{RECIPE}"
    return _installed("tree of VNC viewers", packages, tree)
