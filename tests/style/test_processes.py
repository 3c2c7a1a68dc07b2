"""Tests start processes that run beside them by one helper, which ends them with the tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.style.sources import modules

STARTS = frozenset(
    {
        *("Popen", "create_subprocess_exec", "create_subprocess_shell"),
        *("fork", "forkpty", "posix_spawn", "posix_spawnp", "Process"),
    }
)
OWN = {
    "tests.framework.ending": "the helper",
    "tests.unit.framework.test_ending": "what is killed to see whether its processes end",
    "tests.framework.agent": "runs inside a guest, which ends as a whole",
    "tests.framework.cloud_init_guest": "runs inside a guest, which ends as a whole",
    "tests.framework.probe_sandbox": "waits for each child at once",
}


def starts_in(tree: ast.Module) -> Iterator[int]:
    """The lines that start a process which runs on beside the caller."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
            if name in STARTS:
                yield node.lineno


def test_processes_of_tests_end_with_the_tests() -> None:
    found = [
        f"{module.shown}:{line}: start it by `started` of tests/framework/ending.py"
        for module in modules()
        if module.name.startswith("tests.") and module.name not in OWN
        for line in starts_in(module.tree)
    ]
    assert found == []


def test_the_exceptions_are_needed() -> None:
    starting = {module.name for module in modules() if any(starts_in(module.tree))}
    assert set(OWN) <= starting


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("subprocess.Popen(['a'])", 1),
        ("Popen(['a'])", 1),
        ("await asyncio.create_subprocess_exec('a')", 1),
        ("os.fork()", 1),
        ("subprocess.run(['a'], timeout=1)", 0),
        ("x: subprocess.Popen[bytes]", 0),
        ("started(['a'])", 0),
    ],
)
def test_a_start_is_found(source: str, count: int) -> None:
    assert len(list(starts_in(ast.parse(source)))) == count
