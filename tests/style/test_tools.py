"""The linter, the formatter and the type checker, with the settings of pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.style.sources import PACKAGES, REPOSITORY


def _run(*arguments: str, timeout_s: float) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    _run("ruff", "check", "--quiet", *PACKAGES, timeout_s=120)


def test_ruff_would_format_nothing() -> None:
    _run("ruff", "format", "--check", *PACKAGES, timeout_s=120)


@pytest.mark.timeout(600)
def test_mypy_finds_nothing() -> None:
    _run("mypy", timeout_s=580)
