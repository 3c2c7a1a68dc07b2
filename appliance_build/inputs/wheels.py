"""The wheels that go into the image, unpacked side by side, by their lock."""

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from appliance_build.inputs.archive import file_digest
from appliance_build.inputs.cache import (
    cache_root,
    locked,
    mark_tree,
    remove_tree,
    tree_is_sound,
)
from appliance_build.inputs.run import run
from appliance_build.progress import step

__all__ = ["APPLIANCE_WHEELS", "BUILD_WHEELS", "appliance_wheels"]

APPLIANCE_WHEELS = Path(__file__).parent / "appliance-wheels.lock"
BUILD_WHEELS = APPLIANCE_WHEELS.with_name("build-wheels.lock")
TARGET_PYTHON = "3.13"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def appliance_wheels() -> Path:
    """Return the tree of unpacked wheels, made now if the cache has no sound one."""
    tree = cache_root() / f"wheels-{file_digest(APPLIANCE_WHEELS)[:16]}"
    with locked("wheels"):
        if tree_is_sound(tree):
            return tree
        remove_tree(tree)
        temporary = tree.with_name(tree.name + ".new")
        remove_tree(temporary)
        temporary.mkdir()
        with (
            step("fetching the appliance's Python wheels"),
            tempfile.TemporaryDirectory(prefix="mica-wheels-") as folder,
        ):
            run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                    *("--require-hashes", "--only-binary=:all:"),
                    *("--implementation", "cp", "--python-version", TARGET_PYTHON),
                    *(f"--platform={platform}" for platform in PLATFORMS),
                    *("--dest", folder, "--requirement", APPLIANCE_WHEELS),
                ],
                timeout_s=900,
            )
            for wheel in sorted(Path(folder).glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(temporary)
        shutil.rmtree(temporary / "bin", ignore_errors=True)
        temporary.rename(tree)
        mark_tree(tree)
    return tree
