"""What every stage shares: the order of the stages, and the report at the end."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings

from tests.framework.retries import FAULTS
from tests.framework.story import MARKER, check_story

STAGES = ("style", "unit", "hosted", "boot", "benchmarks")
ALONE = "alone: measures what others at the same time would change; runs by itself"
TESTS = Path(__file__).parent
_seconds: dict[str, float] = defaultdict(float)
_counts: dict[str, int] = defaultdict(int)

# How busy the machine is, is no property of ours. Every run tries the same examples, so that a
# result belongs to the code; `--hypothesis-profile search` tries new ones.
settings.register_profile("mica", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("mica")


def _stage(path: Path) -> str:
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else "other"


def _rank(item: pytest.Item) -> int:
    stage = _stage(item.path)
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", ALONE)
    for stage in STAGES:
        config.addinivalue_line("markers", f"{stage}: in tests/{stage}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: is the test's story told from its beginning?"""
    check_story(item)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick stages first, so that what is cheap to find is found first; mark each by its stage."""
    items.sort(key=_rank)
    for item in items:
        if (stage := _stage(item.path)) in STAGES:
            item.add_marker(stage)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each stage takes."""
    stage = _stage(TESTS.parent / report.nodeid.partition("::")[0])
    _seconds[stage] += report.duration
    if report.when == "call":
        _counts[stage] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each stage took, those of the run before included, and what was tried again.

    Where tests run on several processors, it is their time by the clock, shared out by what each
    took of it.
    """
    if hasattr(terminalreporter.config, "workerinput"):
        return  # one of several processes; the first of them reports
    spread = max(1, len(getattr(terminalreporter.config.option, "tx", None) or ()))
    lines = [
        f"{stage:12} {_counts[stage]:5} tests {seconds / spread:8.1f} s"
        for stage, seconds in _seconds.items()
    ]
    if kept := os.environ.get("MICA_STAGES"):
        path = Path(kept)
        lines = [*(json.loads(path.read_text()) if path.exists() else ()), *lines]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(lines))
    if lines:
        terminalreporter.section("time by stage")
    for line in lines:
        terminalreporter.line(line)
    if FAULTS:
        terminalreporter.section("faults of the emulator that were tried again")
    for fault in FAULTS:
        terminalreporter.line(fault)
