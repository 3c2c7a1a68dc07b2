"""The two Python packages: the client's has what the client needs and no more, and runs by itself;
the hypervisor's has the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.framework.repository import REPOSITORY

BUILD = "import sys; from hatchling import build; getattr(build, sys.argv[1])(sys.argv[2])"
LICENCE = (REPOSITORY / "LICENSE").read_text()
OURS = ("firmware", "remote_api", "vmkernel")
CLIENTS = ("remote_api.client", "remote_api.schema", "vmkernel.model")
"""The packages that the client's wheel has whole."""
EVERY_MODULE = """
import importlib, pkgutil, sys
import remote_api.client, remote_api.schema, vmkernel.model
for package in (remote_api.client, remote_api.schema, vmkernel.model):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith(".__main__"):
            importlib.import_module(found.name)
server = {"vmkernel.control", "vmkernel.vm", "remote_api.http", "remote_api.resources"}
assert not server & set(sys.modules)
"""


def _build(project: Path, folder: Path, kind: str) -> subprocess.CompletedProcess[bytes]:
    folder.mkdir()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(folder)],
        cwd=project,
        env=environment,
        check=False,
        capture_output=True,
        timeout=120,
    )


def _built(project: Path, folder: Path, kind: str = "build_wheel") -> Path:
    done = _build(project, folder, kind)
    assert done.returncode == 0, done.stderr
    (found,) = folder.iterdir()
    return found


def _files(wheel: Path) -> set[str]:
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel."""
    return _built(REPOSITORY, tmp_path_factory.mktemp("c") / "wheel")


@pytest.fixture(scope="module")
def hypervisor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hypervisor's."""
    project = REPOSITORY / "appliance_build" / "hypervisor"
    return _built(project, tmp_path_factory.mktemp("h") / "wheel")


def test_the_client_has_its_modules_and_the_nouns_alone(client: Path) -> None:
    assert client.name.startswith("mica_client-")
    packages = tuple(f"{name.replace('.', '/')}/" for name in CLIENTS)
    assert {name for name in _files(client) if not name.startswith(packages)} == {
        *("remote_api/__init__.py", "remote_api/py.typed"),
        *("vmkernel/__init__.py", "vmkernel/py.typed", "vmkernel/text.py", "vmkernel/version.py"),
    }


def test_together_they_have_every_file_once(client: Path, hypervisor: Path) -> None:
    assert hypervisor.name.startswith("mica_hypervisor-")
    ours = {
        path.relative_to(REPOSITORY).as_posix()
        for package in OURS
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert _files(client) & _files(hypervisor) == set()
    assert _files(client) | _files(hypervisor) == ours


def _licence_of(wheel: Path) -> tuple[str, str]:
    """The licence's text in a wheel, and what its description says of it."""
    with zipfile.ZipFile(wheel) as opened:
        (text,) = (name for name in opened.namelist() if name.endswith("/licenses/LICENSE"))
        (metadata,) = (name for name in opened.namelist() if name.endswith("/METADATA"))
        return opened.read(text).decode(), opened.read(metadata).decode()


def test_both_have_the_licence(client: Path, hypervisor: Path) -> None:
    for wheel in (client, hypervisor):
        text, metadata = _licence_of(wheel)
        assert text == LICENCE
        assert "License-Expression: Apache-2.0\n" in metadata
        assert "License-File: LICENSE\n" in metadata


def test_the_source_has_the_licence_and_makes_both_wheels(
    client: Path, hypervisor: Path, tmp_path: Path
) -> None:
    source = _built(REPOSITORY, tmp_path / "sdist", "build_sdist")
    with tarfile.open(source) as opened:
        opened.extractall(tmp_path / "tree", filter="data")
    (tree,) = (tmp_path / "tree").iterdir()
    assert (tree / "LICENSE").read_text() == LICENCE
    for made, project in ((client, tree), (hypervisor, tree / "appliance_build" / "hypervisor")):
        again = _built(project, tmp_path / made.stem)
        assert _files(again) == _files(made)
        assert _licence_of(again) == _licence_of(made)


def test_the_hypervisor_alone_is_no_source(tmp_path: Path) -> None:
    project = REPOSITORY / "appliance_build" / "hypervisor"
    done = _build(project, tmp_path / "sdist", "build_sdist")
    assert done.returncode != 0
    assert b"mica-client's sdist is the source" in done.stderr


def test_the_client_runs_without_the_hypervisor(client: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60
    )
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    # What the client needs is in the environment of the tests already; nothing is fetched.
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    uv = (sys.executable, "-m", "uv", "--quiet", "pip", "install", "--offline", "--no-deps")
    subprocess.run([*uv, "--python", str(python), str(client)], check=True, timeout=60)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    shown = run(place / "bin" / "mica", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage: mica" in shown.stdout
    everything = run(python, "-c", EVERY_MODULE)
    assert everything.returncode == 0, everything.stderr
    serving = run(place / "bin" / "mica", "serve", "--dir", tmp_path / "host")
    assert serving.returncode == 1
    assert "vmkernel.wiring: install the package mica-hypervisor" in serving.stderr
