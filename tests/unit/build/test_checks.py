"""The targets that test: every run takes place, and SCons fails if any does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance_build.builders import checks
from tests.framework.repository import REPOSITORY

SCONSTRUCT = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(REPOSITORY)!r})
from appliance_build.builders import checks
env = Environment(tools=[], ENV=dict(os.environ))
nodes = dict.fromkeys(("tools", "donor", "guests", "stick", "efi"), [])
checks.add_check_targets(env, Path("build").absolute(), nodes)
"""
PYTEST = """
import json, os, sys
from pathlib import Path
done = Path("done.json")
runs = json.loads(done.read_text()) if done.exists() else []
runs.append(sys.argv[1:])
done.write_text(json.dumps(runs))
sys.exit(int(os.environ["OUTCOMES"].split()[len(runs) - 1]))
"""


@pytest.mark.parametrize(
    ("outcomes", "fails"),
    [("0 0 0", False), ("1 0 0", True), ("0 3 0", True), ("0 0 1", True), ("1 1 1", True)],
)
def test_scons_runs_all_tests_and_fails_if_any_run_does(
    tmp_path: Path, outcomes: str, fails: bool
) -> None:
    (tmp_path / "SConstruct").write_text(SCONSTRUCT)
    (tmp_path / "pytest.py").write_text(PYTEST)
    done = subprocess.run(
        [sys.executable, "-m", "SCons", "test"],
        cwd=tmp_path,
        env={**os.environ, "OUTCOMES": outcomes},
        check=False,
        timeout=60,
    )
    assert (done.returncode != 0) == fails
    assert (tmp_path / "done.json").read_text().count("tests/") == len(checks.STAGES) + 1


def test_every_test_is_in_one_run() -> None:
    """What starts a whole machine, or measures, has both processors."""
    runs = checks._runs(*checks.STAGES)
    assert runs == [
        (checks.SPREAD, "style unit"),
        (f"{checks.SPREAD} -m 'not alone'", "hosted"),
        ("-m 'alone or not hosted'", "hosted boot"),
    ]
    assert checks._runs("boot") == [("-m 'alone or not hosted'", "boot")]
    assert checks._runs("unit") == [(checks.SPREAD, "unit")]
