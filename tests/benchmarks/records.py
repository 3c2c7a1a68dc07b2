"""What a measurement leaves behind: figures with their spread, the commit and the machine.

`python -m tests.benchmarks.records [build/bench]` prints all that lie there as one table.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance_build.tools.sandbox import loader_argv
from tests.framework import inputs

__all__ = ["REPEATS", "Record", "percentile", "table"]

REPEATS = int(os.environ.get("MICA_BENCH_N", "3"))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Record:
    """The figures of one benchmark."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._figures: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, Any] = {}

    def figure(self, name: str, unit: str, values: Sequence[float], **more: float) -> None:
        """Add a figure."""
        self._figures[name] = {
            "unit": unit,
            "n": len(values),
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
            **{key: round(value, 4) for key, value in more.items()},
            "values": [round(value, 4) for value in values],
        }

    def latency(self, name: str, values_ms: Sequence[float]) -> None:
        """Add what many calls took, in milliseconds, with the 99th percentile."""
        self.figure(name, "ms", values_ms, p99=percentile(values_ms, 0.99))

    def compare(
        self,
        name: str,
        unit: str,
        ours: Sequence[float],
        plain: Sequence[float],
        *,
        floor: str = "plain",
    ) -> None:
        """Add what we and a plain tool took in turn in one run, and the ratios of the pairs."""
        self.figure(name, unit, ours)
        self.figure(f"{name}, {floor}", unit, plain)
        self.ratio(f"{name}: ratio to {floor}", ours, plain)

    def ratio(self, name: str, ours: Sequence[float], plain: Sequence[float]) -> None:
        """Add the ratios of pairs that were measured in turn."""
        self.figure(name, "", [a / b for a, b in zip(ours, plain, strict=True)])

    def note(self, name: str, value: Any) -> None:
        """Add something that is no figure, such as a list of the largest."""
        self._notes[name] = value

    def write(self) -> Path:
        """Write the file, and say the figures."""
        folder = inputs.BUILD / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.json"
        content = {
            "benchmark": self._name,
            "taken_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "commit": _git("rev-parse", "HEAD"),
            "changed_since_commit": bool(_git("status", "--porcelain")),
            "machine": _machine(),
            "figures": self._figures,
            **self._notes,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"\n{path.name}")
        for name, figure in self._figures.items():
            spread = f"{figure['min']} to {figure['max']}, n={figure['n']}"
            print(f"  {name}: {figure['median']} {figure['unit']} ({spread})")
        return path


def table(folder: Path) -> str:
    """All records of a folder as one table in Markdown."""
    lines = [
        "| benchmark | figure | median | min to max | n | p99 |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for name, figure in content["figures"].items():
            spread = f"{_short(figure['min'])} to {_short(figure['max'])}"
            p99 = _short(figure["p99"]) if "p99" in figure else ""
            median = f"{_short(figure['median'])} {figure['unit']}".strip()
            lines.append(
                f"| {content['benchmark']} | {name} | {median} | {spread} | {figure['n']} | {p99} |"
            )
    return "\n".join(lines)


def _short(value: float) -> str:
    """A number with three digits that say something, and no exponent."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=inputs.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip()


def _machine() -> dict[str, Any]:
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    emulator = subprocess.run(
        [*loader_argv(inputs.tools(), "qemu-system-x86_64")[:4], "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout.partition("\n")[0]
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "emulator": emulator,
        "test_machine": "q35, EPYC with SVM by TCG, 2 vCPU, 2 GiB, stick on xHCI",
    }


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else inputs.BUILD / "bench"))
