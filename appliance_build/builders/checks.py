"""The test and benchmark targets: each is pytest on a folder of ``tests/``.

Modules run side by side, one on each processor, but for those that start a whole machine or
measure what others would change.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from appliance_build.builders.support import phony

__all__ = ["add_check_targets", "run_stages"]

STAGES = ("style", "unit", "hosted", "boot")
NEEDS_TREES = ("hosted",)
NEEDS_IMAGE = ("boot",)

SPREAD = "-n auto --dist loadfile"
QUICK = ("style", "unit")


def _runs(*stages: str) -> list[tuple[str, str]]:
    """The runs of pytest, as few as there can be: how, and in which folders."""
    together = " ".join(stage for stage in stages if stage in QUICK)
    rest = " ".join(stage for stage in stages if stage not in QUICK)
    runs = [(SPREAD, together)]
    if "hosted" in stages:
        runs.append((f"{SPREAD} -m 'not alone'", "hosted"))
    runs.append(("-m 'alone or not hosted'", rest))
    return [(how, folders) for how, folders in runs if folders]


def run_stages(build: Path, *stages: str, times: Path | None = None) -> int:
    """Run all of them, whatever one finds; the status of the first that failed, or 0.

    The last run ends with the times of all stages, which are gathered in the file `times`.
    """
    environment = {**os.environ, "MICA_BUILD": str(build)}
    if times is not None:
        times.unlink(missing_ok=True)
        environment["MICA_STAGES"] = str(times)
    failed = 0
    for how, folders in _runs(*stages):
        words = [*shlex.split(how), *(f"tests/{folder}" for folder in folders.split())]
        print(shlex.join(["pytest", *words]), flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words], env=environment, check=False
        )
        failed = failed or done.returncode
    return failed


def add_check_targets(env: Any, build: Path, nodes: dict[str, Any]) -> None:
    """Define ``test``, ``test-<stage>`` and ``bench``."""
    trees = [nodes["tools"], nodes["donor"], nodes["guests"]]
    image = [*trees, nodes["stick"], nodes["efi"], nodes["inputs"]]

    def action(*stages: str, times: Path | None = None) -> Any:
        def run(target: Any, source: Any, env: Any) -> int:
            del target, source, env
            return run_stages(build, *stages, times=times)

        return env.Action(run, cmdstr=None)

    every = action(*STAGES, times=build / "tests/stages.json")
    phony(env, "test", image, every, text="all tests, with each stage's time")
    for stage in STAGES:
        sources = image if stage in NEEDS_IMAGE else trees if stage in NEEDS_TREES else []
        phony(env, f"test-{stage}", sources, action(stage), text=f"tests/{stage} alone")
    text = "benchmarks; JSON files in build/bench/"
    phony(env, "bench", image, action("benchmarks"), text=text)
