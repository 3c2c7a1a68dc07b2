"""The test and benchmark targets: each is pytest on a folder of ``tests/``.

What needs no machine runs on all processors; what starts QEMU runs one test after the other.
"""

import sys
from pathlib import Path
from typing import Any

from appliance_build.builders.support import phony

__all__ = ["add_check_targets"]

STAGES = ("style", "unit", "hosted", "boot")
SPREAD = ("style", "unit")
NEEDS_TREES = ("hosted",)
NEEDS_IMAGE = ("boot",)


def _pytest(build: Path, *folders: str) -> str:
    names = " ".join(f"tests/{folder}" for folder in folders)
    spread = " -n auto --dist loadfile" if set(folders) <= set(SPREAD) else ""
    return f"MICA_BUILD={build} {sys.executable} -m pytest{spread} {names}"


def _all(build: Path) -> str:
    """Both runs, whatever the first finds; the second ends with the times of all stages."""
    times = build / "tests/stages.json"
    alone = [stage for stage in STAGES if stage not in SPREAD]
    return (
        f"rm -f {times}; export MICA_STAGES={times};"
        f" {_pytest(build, *SPREAD)}; first=$?; {_pytest(build, *alone)} && exit $first"
    )


def add_check_targets(env: Any, build: Path, nodes: dict[str, Any]) -> None:
    """Define ``test``, ``test-<stage>`` and ``bench``."""
    trees = [nodes["tools"], nodes["donor"], nodes["guests"]]
    image = [*trees, nodes["stick"], nodes["efi"]]
    phony(env, "test", image, _all(build), text="all tests, with each stage's time")
    for stage in STAGES:
        sources = image if stage in NEEDS_IMAGE else trees if stage in NEEDS_TREES else []
        phony(env, f"test-{stage}", sources, _pytest(build, stage), text=f"tests/{stage} alone")
    text = "benchmarks; JSON files in build/bench/"
    phony(env, "bench", image, _pytest(build, "benchmarks"), text=text)
