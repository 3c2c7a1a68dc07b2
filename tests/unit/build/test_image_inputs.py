"""An image that is not of the checkout is noticed, with what differs and how to build it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance_build.release.image_inputs import RECORD, changed_inputs, record_inputs
from tests.framework.inputs import staleness
from tests.framework.repository import REPOSITORY

FILES = ("vmkernel/a.py", "remote_api/http/b.py", "firmware/c.toml", "appliance_build/d.lock")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (*FILES, "remote_api/client/e.py", "vmkernel/README.md"):
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "build").mkdir()
    record_inputs(tmp_path / "checkout", tmp_path / "build")
    return tmp_path / "checkout"


def told(checkout: Path) -> str:
    return staleness(checkout, checkout.parent / "build")


def test_an_image_of_this_checkout_is_taken(checkout: Path) -> None:
    assert changed_inputs(checkout, checkout.parent / "build") == []
    (checkout / "vmkernel/__pycache__").mkdir()
    (checkout / "vmkernel/__pycache__/a.pyc").write_text("byte code")
    (checkout / "vmkernel/a.py").touch()
    (checkout / "remote_api/client/e.py").write_text("no image holds it")
    (checkout / "vmkernel/README.md").write_text("nor this")
    assert told(checkout) == ""


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(checkout: Path, name: str) -> None:
    (checkout / name).write_text("changed")
    assert f"{name} differ" in told(checkout)


def test_a_new_and_a_removed_file_are_named(checkout: Path) -> None:
    (checkout / "vmkernel/new.py").write_text("")
    (checkout / "firmware/c.toml").unlink()
    assert "firmware/c.toml, vmkernel/new.py differ" in told(checkout)


@pytest.mark.parametrize("record", [None, "", "{", "[1"])
def test_an_image_without_a_record_is_not_taken(checkout: Path, record: str | None) -> None:
    path = checkout.parent / "build" / RECORD
    path.unlink()
    if record is not None:
        path.write_text(record)
    assert "no record" in told(checkout)


def run(build: Path, override: str, *words: str) -> subprocess.CompletedProcess[str]:
    (build / "mica.img").write_bytes(b"")
    return subprocess.run(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env={**os.environ, "MICA_BUILD": str(build), "MICA_ANY_IMAGE": override},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_boot_tests_end_at_once_with_the_command(tmp_path: Path) -> None:
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/boot/test_open_ports.py")
    ran = run(tmp_path, "", *words)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR, ran.stdout
    assert "build it: python3 -m appliance_build image" in ran.stdout + ran.stderr


@pytest.mark.parametrize(("override", "status"), [("", 1), ("1", 0)])
def test_any_image_is_taken_if_that_is_said(tmp_path: Path, override: str, status: int) -> None:
    words = ("-c", "from tests.framework.inputs import stick_image; print(stick_image())")
    ran = run(tmp_path, override, *words)
    assert (ran.returncode, "StaleImageError" in ran.stderr) == (status, bool(status))
