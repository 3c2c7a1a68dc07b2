"""What must not stand in any file of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.style.sources import REPOSITORY, tracked_files

# Written in two parts, so that this file does not match itself.
MACHINE_PATHS = re.compile("|".join(("/wo" + "rk/", "/tmp/" + "mica/", "/home/" + "[a-z]")))
HOSTS = re.compile(
    "|".join(
        (
            r"deb\." + r"debian\.org",
            r"security\." + r"debian\.org",
            r"ftp\.[a-z.]*" + r"debian\.org",
            r"pypi" + r"\.org",
            r"python" + r"hosted\.org",
        )
    )
)
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
LICENCE = "LICENSE"


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return None


def _matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked_files():
        text = _text(path)
        if text is None or path.name == LICENCE:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    return found


def test_no_path_of_a_build_machine() -> None:
    assert _matches(MACHINE_PATHS) == []


def test_no_name_of_a_mirror_or_registry() -> None:
    assert _matches(HOSTS) == []


def test_nothing_is_left_unfinished() -> None:
    assert _matches(UNFINISHED) == []


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "SConstruct", "pyproject.toml"])
def test_the_top_level_is_as_it_should_be(name: str) -> None:
    assert (REPOSITORY / name).is_file()


def test_text_files_end_in_one_newline_and_have_no_trailing_blanks() -> None:
    found = []
    for path in tracked_files():
        text = _text(path)
        if not text or path.name == LICENCE or path.suffix in {".json", ".lock"}:
            continue
        if not text.endswith("\n") or text.endswith("\n\n"):
            found.append(f"{path.relative_to(REPOSITORY)}: its end")
        if path.suffix != ".md" and re.search(r"[ \t]+$", text, re.MULTILINE):
            found.append(f"{path.relative_to(REPOSITORY)}: blanks at the end of a line")
    assert found == []
