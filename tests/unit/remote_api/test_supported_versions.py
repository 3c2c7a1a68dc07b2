"""The libraries that read what clients send: which versions the API was tried with.

To support another one, run this folder's tests and `tests/hosted/test_consoles.py` with it, then
change pyproject.toml and the table here. h11 before 0.16 takes chunks that end in other bytes than
CR LF (CVE-2025-43859).
"""

from __future__ import annotations

import tomllib
from importlib.metadata import version

import pytest

from tests.framework.repository import REPOSITORY

TRIED = {
    "h11": (("0.16", "0.17"), ("0.16.0",)),
    "websockets": (("13", "18"), ("13.1", "15.0.1", "16.0", "17.0", "17.4")),
}
"""From, and below; and those that were tried between them."""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize("name", TRIED)
def test_only_versions_that_were_tried_are_allowed(name: str) -> None:
    (least, below), tried = TRIED[name]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["host"]]
    assert [each for each in wanted if each.startswith(name)] == [f"{name}>={least},<{below}"]
    for each in (*tried, version(name)):
        assert _numbers(least) <= _numbers(each) < _numbers(below)
    assert tried[0].startswith(least), "the lower bound itself was tried"


@pytest.mark.parametrize("name", TRIED)
def test_what_is_locked_was_tried(name: str) -> None:
    for lock in ("appliance-wheels.lock", "build-wheels.lock"):
        text = (REPOSITORY / "appliance_build/inputs" / lock).read_text()
        locked = next(line for line in text.splitlines() if line.startswith(f"{name}=="))
        assert locked.removeprefix(f"{name}==").split()[0] in TRIED[name][1], locked
