"""The READMEs name commands, targets and files that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest

from tests.style.sources import REPOSITORY, tracked_files

FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)")
SET_UP = {"run", "test"}


def _readmes() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def _commands(program: str) -> list[tuple[str, list[str]]]:
    """Every command line in the READMEs that starts with the program: file and words."""
    found = []
    for path in _readmes():
        text = path.read_text()
        lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
        lines += INLINE.findall(FENCE.sub("", text))
        for line in lines:
            words = line.strip().removeprefix("$ ").removeprefix("sudo ").split()
            if words and words[0] == program:
                found.append((str(path.relative_to(REPOSITORY)), words[1:]))
    return found


@cache
def _scons_help() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "SCons", "-h"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def _mica() -> click.Group:
    from remote_api.client.cli import main

    assert isinstance(main, click.Group)
    return main


def test_set_up_commands_are_named_and_are_there() -> None:
    named = {
        words[2]
        for _, words in _commands("python3")
        if words[:2] == ["-m", "appliance_build"] and len(words) > 2
    }
    assert named >= SET_UP
    assert (REPOSITORY / "appliance_build/__main__.py").is_file()


def test_scons_targets_are_in_its_help() -> None:
    unknown = [
        f"{where}: scons {' '.join(words)}"
        for where, words in _commands("scons")
        for word in words
        if re.fullmatch(r"[a-z][a-z-]*", word) and word not in re.split(r"[\s,]+", _scons_help())
    ]
    assert unknown == []


def test_mica_commands_are_there() -> None:
    unknown = []
    for where, words in _commands("mica"):
        command: click.Command = _mica()
        for word in words:
            if not isinstance(command, click.Group) or not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            following = command.commands.get(word)
            if following is None:
                unknown.append(f"{where}: mica {' '.join(words)}")
                break
            command = following
    assert unknown == []


@pytest.mark.parametrize("path", _readmes(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(path: Path) -> None:
    dead = [
        target
        for target in LINK.findall(path.read_text())
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists()
    ]
    assert dead == []
