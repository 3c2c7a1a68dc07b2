"""The same inputs give the same image, bit for bit: also from another folder into another one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.framework import inputs
from tests.framework.appliance import sha256_of

BUILD_S = 900
COMPARED = ("manifest.json", "mica.sbom.json", "root.erofs", "initrd", "mica.efi", "mica.img")


@pytest.fixture(scope="module")
def second_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sources in another folder, built from there into yet another one."""
    sources = tmp_path_factory.mktemp("another") / "place"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=inputs.REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = inputs.REPOSITORY / name
        if source.is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, sources / name)
    build = tmp_path_factory.mktemp("made")
    done = subprocess.run(
        [sys.executable, "-m", "SCons", "-C", str(sources), f"BUILD={build}", "image"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return build


@pytest.mark.timeout(BUILD_S + 60)
@pytest.mark.parametrize("name", COMPARED)
def test_two_builds_are_the_same(second_build: Path, name: str) -> None:
    first, second = inputs.BUILD / name, second_build / name
    assert first.stat().st_size == second.stat().st_size
    assert sha256_of(first) == sha256_of(second)
