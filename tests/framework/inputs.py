"""Where the tests find what they need: the built image and the trees it was made of.

A tree is asked of the build, which makes it where it has to. While working on something else, an
environment variable can name one that is there already: MICA_TOOLS_TREE, MICA_DONOR_TREE,
MICA_GUESTS_TREE, MICA_BROWSER_TREE, MICA_GENERATORS_TREE, MICA_PROVISIONING_TREE,
MICA_VIEWERS_TREE (folders) and MICA_BUILD (the folder with mica.img and mica.efi).

An image of another state of the checkout is refused: a test would prove nothing about this one.
MICA_ANY_IMAGE=1 takes it nevertheless.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path

from appliance_build.image.donor import donor_tree
from appliance_build.release.image_inputs import changed_inputs
from appliance_build.tools.tools_tree import (
    tools_tree,
    unpacked_browser,
    unpacked_generators,
    unpacked_guests,
    unpacked_provisioning,
    viewers_tree,
)

__all__ = [
    "BUILD",
    "MissingInputError",
    "REPOSITORY",
    "browser",
    "donor",
    "generators",
    "guests",
    "kernel_release",
    "making",
    "provisioning",
    "staleness",
    "stick_image",
    "tools",
    "viewers",
    "work_folder",
]

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_IMAGE = "python3 -m appliance_build image"
BUILD = Path(os.environ.get("MICA_BUILD", REPOSITORY / "build")).resolve()


class MissingInputError(Exception):
    """Something that the tests need is not there; the message says how to get it."""


class StaleImageError(MissingInputError):
    """The image is not of this checkout."""


@cache
def tools() -> Path:
    """The tools tree: compiler, QEMU, mtools, syslinux."""
    named = os.environ.get("MICA_TOOLS_TREE")
    return Path(named).resolve() if named else tools_tree()


@cache
def donor() -> Path:
    """The donor tree, of which the tests take the kernel and its modules."""
    named = os.environ.get("MICA_DONOR_TREE")
    return Path(named).resolve() if named else donor_tree(tools())


@cache
def guests() -> Path:
    """The tree with Debian's installer and its CD boot loader, unpacked."""
    named = os.environ.get("MICA_GUESTS_TREE")
    return Path(named).resolve() if named else unpacked_guests()


@cache
def browser() -> Path:
    """The tree with a browser and noVNC, unpacked."""
    named = os.environ.get("MICA_BROWSER_TREE")
    return Path(named).resolve() if named else unpacked_browser()


@cache
def generators() -> Path:
    """The tree with Java, Node.js and Go, unpacked."""
    named = os.environ.get("MICA_GENERATORS_TREE")
    return Path(named).resolve() if named else unpacked_generators()


@cache
def provisioning() -> Path:
    """The tree with cloud-init and QEMU's guest agent, unpacked."""
    named = os.environ.get("MICA_PROVISIONING_TREE")
    return Path(named).resolve() if named else unpacked_provisioning()


@cache
def viewers() -> Path:
    """The tree with VNC viewers and Xvfb."""
    named = os.environ.get("MICA_VIEWERS_TREE")
    return Path(named).resolve() if named else viewers_tree()


@cache
def kernel_release() -> str:
    """The release of the donor's one kernel."""
    releases = sorted(path.name for path in (donor() / "usr/lib/modules").iterdir())
    if len(releases) != 1:
        raise MissingInputError(f"the donor tree has kernels {releases}, one is wanted")
    return releases[0]


@cache
def stick_image() -> Path:
    """The stick image, built of the checkout as it is."""
    image = BUILD / "mica.img"
    if not image.is_file():
        raise MissingInputError(f"{image} is not there; build it: {BUILD_IMAGE}")
    if not os.environ.get("MICA_ANY_IMAGE") and (told := staleness(REPOSITORY, BUILD)):
        raise StaleImageError(f"{image} {told}; build it: {BUILD_IMAGE}")
    return image


def staleness(repository: Path, build: Path) -> str:
    """How an image differs from what a checkout would give; empty if it doesn't."""
    changed = changed_inputs(repository, build)
    if changed is None:
        return "has no record of what it was built of"
    if not changed:
        return ""
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"is older than the checkout, or of another: {', '.join(changed[:3])}{more} differ"


def work_folder(name: str) -> Path:
    """A folder under the build folder for what the tests make and may keep."""
    folder = BUILD / "tests" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def making(name: str) -> Iterator[Path]:
    """That folder, held while something is made in it: tests may run in several processes."""
    folder = work_folder(name)
    with (folder / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield folder
