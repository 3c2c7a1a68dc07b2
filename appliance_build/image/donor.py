"""Make the donor tree: the locked Debian packages installed by mkosi into a plain directory."""

import hashlib
import os
import shutil
import sys
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
from appliance_build.progress import step
from appliance_build.release.version import SOURCE_DATE_EPOCH

__all__ = ["donor_tree", "mkosi_digest"]

MKOSI_FOLDER = Path(__file__).parent / "mkosi"

SOURCES = """\
Types: deb
URIs: copy:///etc/mica-packages
Suites: locked
Components: main
Trusted: yes
"""


def mkosi_digest() -> str:
    """Return a short hash of mkosi's configuration and of this recipe."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(MKOSI_FOLDER.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(MKOSI_FOLDER)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _run_mkosi(packages: LockedSet, tools: Path, work: Path) -> Path:
    sandbox_tree = work / "sandbox"
    make_repository(packages.files(), sandbox_tree / "etc/mica-packages")
    # Under exactly this name it replaces the list that mkosi would write.
    sources = sandbox_tree / "etc/apt/sources.list.d/mkosi.sources"
    sources.parent.mkdir(parents=True)
    sources.write_text(SOURCES)
    argv: list[str | Path] = [
        sys.executable,
        "-B",
        "-m",
        "mkosi",
        f"--directory={MKOSI_FOLDER}",
        f"--tools-tree={tools}",
        f"--sandbox-tree={sandbox_tree}",
        f"--output-directory={work / 'out'}",
        f"--workspace-directory={work / 'workspace'}",
        f"--package-cache-dir={work / 'cache'}",
        f"--source-date-epoch={SOURCE_DATE_EPOCH}",
        "--output=donor",
        "--force",
        *(f"--package={package.name}" for package in packages.packages),
        "build",
    ]
    for name in ("out", "workspace", "cache"):
        (work / name).mkdir()
    modules = tools / "usr/lib/python3/dist-packages"
    run(argv, timeout_s=1800, env={"PYTHONPATH": str(modules)})
    return work / "out/donor"


def donor_tree(tools: Path, report: Path | None = None) -> Path:
    """Return the donor tree, made now if the cache has no sound one."""
    packages = obtain("donor", report)
    tree = cache_root() / f"donor-{packages.digest}-{mkosi_digest()}"
    with locked("donor tree"):
        if tree_is_sound(tree):
            return tree
        remove_tree(tree)
        count = len(packages.packages)
        with (
            step(f"installing {count} packages into the donor tree by mkosi (1 to 2 minutes)"),
            tempfile.TemporaryDirectory(prefix="mkosi-", dir=cache_root()) as folder,
        ):
            made = _run_mkosi(packages, tools, Path(folder))
            shutil.rmtree(tree, ignore_errors=True)
            os.rename(made, tree)
        mark_tree(tree)
    return tree
