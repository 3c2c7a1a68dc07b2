"""The Python environment that builds and tests: wheels pinned by hash, in the cache."""

import platform
import shutil
import sys
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
from appliance_build.inputs.wheels import BUILD_WHEELS
from appliance_build.progress import step

__all__ = ["python_environment"]


def python_environment() -> Path:
    """Return the environment's folder, made now if the cache has no sound one."""
    digest = file_digest(BUILD_WHEELS)[:16]
    tree = cache_root() / f"venv-{digest}-{platform.python_version()}"
    with locked("python environment"):
        if tree_is_sound(tree):
            return tree
        remove_tree(tree)
        with step("making the Python environment (half a minute)"):
            try:
                # In its final place, for its programs name it.
                run([sys.executable, "-m", "venv", tree], timeout_s=300)
                run(
                    [
                        *(tree / "bin/python", "-m", "pip", "install", "--quiet"),
                        *("--disable-pip-version-check", "--no-deps", "--require-hashes"),
                        *("--only-binary=:all:", "--requirement", BUILD_WHEELS),
                    ],
                    timeout_s=900,
                )
            except BaseException:
                shutil.rmtree(tree, ignore_errors=True)
                raise
        mark_tree(tree)
    return tree
