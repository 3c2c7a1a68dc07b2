"""The test and benchmark targets: each is pytest on a folder of ``tests/``."""

import sys
from pathlib import Path
from typing import Any

from appliance_build.builders.support import phony

__all__ = ["add_check_targets"]

STAGES = ("style", "unit", "hosted", "boot")
NEEDS_TREES = ("hosted",)
NEEDS_IMAGE = ("boot",)


def _pytest(build: Path, *folders: str) -> str:
    names = " ".join(f"tests/{folder}" for folder in folders)
    return f"MICA_BUILD={build} {sys.executable} -m pytest {names}"


def add_check_targets(env: Any, build: Path, nodes: dict[str, Any]) -> None:
    """Define ``test``, ``test-<stage>`` and ``bench``."""
    trees = [nodes["tools"], nodes["donor"], nodes["guests"]]
    image = [*trees, nodes["stick"], nodes["efi"]]
    phony(env, "test", image, _pytest(build, *STAGES), text="all tests, with each stage's time")
    for stage in STAGES:
        sources = image if stage in NEEDS_IMAGE else trees if stage in NEEDS_TREES else []
        phony(env, f"test-{stage}", sources, _pytest(build, stage), text=f"tests/{stage} alone")
    text = "benchmarks; JSON files in build/bench/"
    phony(env, "bench", image, _pytest(build, "benchmarks"), text=text)
