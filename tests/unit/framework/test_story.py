"""Tests marked `story` run after all those before them, or fail and say what to run."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PLUGIN = """
import pytest
from tests.framework.story import MARKER, check_story

def pytest_configure(config):
    config.addinivalue_line("markers", MARKER)

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    check_story(item)
"""
MODULE = """
import pytest
{head}

@pytest.fixture(scope="module")
def machine():
    print("A MACHINE STARTS")

def test_first(machine):
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_second(machine, number):
    pass

{mark}
def test_third(machine):
    pass
"""
WHOLE = MODULE.format(head="pytestmark = pytest.mark.story", mark="")
LAST = MODULE.format(head="", mark="@pytest.mark.story")
REASON = "*needs its predecessors: run the whole module (test_it.py; test_{}*has not run)*"


def _run(pytester: pytest.Pytester, module: str, *words: str) -> pytest.RunResult:
    pytester.makeconftest(PLUGIN)
    path = pytester.makepyfile(test_it=module)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *(words or (str(path),)))


@pytest.mark.parametrize("module", [WHOLE, LAST])
def test_a_story_is_told_from_its_beginning(pytester: pytest.Pytester, module: str) -> None:
    _run(pytester, module).assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("module", "choice", "missing"),
    [
        (WHOLE, "third", "first"),
        (WHOLE, "second", "first"),
        (LAST, "third", "first"),
        (LAST, "first or third", "second"),
    ],
)
def test_a_test_that_is_chosen_alone_fails_and_says_why(
    pytester: pytest.Pytester, module: str, choice: str, missing: str
) -> None:
    """Without the machine that its fixtures would start."""
    result = _run(pytester, module, "-k", choice)
    result.stdout.fnmatch_lines([REASON.format(missing)])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    if "first" not in choice:
        result.stdout.no_fnmatch_line("*A MACHINE STARTS*")


@pytest.mark.parametrize("choice", ["second", "first", "first or second"])
def test_others_of_the_module_may_be_chosen(pytester: pytest.Pytester, choice: str) -> None:
    result = _run(pytester, LAST, "-k", choice)
    assert result.ret == pytest.ExitCode.OK


def test_a_beginning_may_be_chosen(pytester: pytest.Pytester) -> None:
    _run(pytester, WHOLE, "test_it.py::test_first", "test_it.py::test_second").assert_outcomes(
        passed=3
    )
