"""The target `test`: both runs take place, and it fails if either does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance_build.builders import checks


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (("true", "true"), 0),
        (("false", "true"), 1),
        (("true", "false"), 1),
        (("exit 3", "true"), 3),
    ],
)
def test_all_tests_run_whatever_the_first_stages_find(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcomes: tuple[str, str], status: int
) -> None:
    asked: list[tuple[str, ...]] = []

    def run(build: Path, *folders: str) -> str:
        asked.append(folders)
        return f"(touch {build}/{len(asked)}; {outcomes[len(asked) - 1]})"

    monkeypatch.setattr(checks, "_pytest", run)
    done = subprocess.run(["sh", "-c", checks._all(tmp_path)], check=False, timeout=30)
    assert done.returncode == status
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert [stage for folders in asked for stage in folders] == list(checks.STAGES)


def test_what_starts_qemu_runs_one_after_the_other(tmp_path: Path) -> None:
    for stage in checks.STAGES:
        assert ("-n auto" in checks._pytest(tmp_path, stage)) == (stage in ("style", "unit"))
