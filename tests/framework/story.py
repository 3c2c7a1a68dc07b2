"""Tests that need those before them in their module: marked `story`, whole modules or single tests.

Chosen without those tests, by -k, a name or --last-failed, such a test fails at once and says why,
before its fixtures start a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

__all__ = ["MARKER", "check_story"]

MARKER = "story: needs all tests before it in its module, which is run as a whole"
_begun = pytest.StashKey[set[tuple[str, str]]]()
"""Modules and functions of the tests that have begun in this session."""


def check_story(item: pytest.Item) -> None:
    """Fail a test whose predecessors have not run; to be called as a test's setup begins."""
    if not isinstance(item, pytest.Function) or item.module is None:
        return
    begun = item.session.stash.setdefault(_begun, set())
    module, name = item.module.__name__, item.originalname
    if item.get_closest_marker("story") is not None:
        missing = [each for each in _before(item, name) if (module, each) not in begun]
        if missing:
            pytest.fail(
                f"{name} needs its predecessors: run the whole module"
                f" ({item.path.name}; {missing[0]} has not run)",
                pytrace=False,
            )
    begun.add((module, name))


def _before(item: pytest.Function, name: str) -> Iterator[str]:
    """The module's tests before that one, in their order."""
    for each, value in vars(item.module).items():
        if each == name:
            return
        if each.startswith("test_") and isinstance(value, Callable):  # type: ignore[arg-type]
            yield each
