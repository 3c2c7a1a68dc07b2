"""What a list costs both processes in CPU time, and how long a GET takes.

With `MICA_BENCH_OTHER=/path/of/another/checkout`, a host of that checkout is asked in turn with one
of this, so that both see the same machine: the ratios say what a change has brought.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.benchmarks.many import ManyVms, host_with, vm_name
from tests.benchmarks.records import REPEATS, Record
from tests.framework.repository import REPOSITORY

OTHER = os.environ.get("MICA_BENCH_OTHER")
VMS = 1000
LISTS = 5
"""In one reading of the clocks, which count the CPU's time in nanoseconds."""
GETS = 500
PLAIN = {"accept-encoding": "identity"}
PROGRAMS = ("remote_api", "vmkernel")


def _cpu_ms(many: ManyVms) -> dict[str, float]:
    """What each process has had of the processors, by all its threads."""
    found = {}
    for program in PROGRAMS:
        tasks = Path(f"/proc/{many.host.pid(program)}/task").glob("*/schedstat")
        found[program] = sum(int(task.read_text().split()[0]) for task in tasks) / 1e6
    return found


def _list_cost_ms(many: ManyVms, headers: Mapping[str, str]) -> dict[str, float]:
    """The CPU's time of one list of all VMs, by process and together."""
    before = _cpu_ms(many)
    for _ in range(LISTS):
        answer = many.mica.transport.send(
            "GET", "/v1/vms", parameters={"limit": VMS}, headers=headers
        )
        assert answer.body.count(b'"revision"') == VMS
    spent = {name: (after - before[name]) / LISTS for name, after in _cpu_ms(many).items()}
    return spent | {"both": sum(spent.values())}


@pytest.mark.timeout(580)
def test_list_cost(tmp_path: Path) -> None:
    record = Record("list-cost")
    sides = {"": REPOSITORY} | ({", before": Path(OTHER)} if OTHER else {})
    with ExitStack() as opened:
        hosts = {
            side: opened.enter_context(host_with(tmp_path / f"h{len(side)}", VMS, source))
            for side, source in sides.items()
        }
        for many in hosts.values():
            _list_cost_ms(many, PLAIN)
        costs: dict[tuple[str, str, str], list[float]] = {}
        for _ in range(5 * REPEATS):
            for side, many in hosts.items():
                for form, headers in (("plain", PLAIN), ("gzip", {"accept-encoding": "gzip"})):
                    for name, cost in _list_cost_ms(many, headers).items():
                        costs.setdefault((form, name, side), []).append(cost)
        latencies: dict[tuple[str, str], list[float]] = {}
        for _ in range(GETS):
            for side, many in hosts.items():
                for path in ("/v1", f"/v1/vms/{vm_name(VMS // 2)}"):
                    began = time.perf_counter()
                    many.mica.transport.send("GET", path)
                    took_ms = (time.perf_counter() - began) * 1000
                    latencies.setdefault((path, side), []).append(took_ms)
    for (form, name, side), values in costs.items():
        record.figure(f"CPU of a list of {VMS} VMs, {form}, {name}{side}", "ms", values)
    if OTHER:
        for form, name in dict.fromkeys((form, name) for form, name, _ in costs):
            ours, before = costs[form, name, ""], costs[form, name, ", before"]
            record.ratio(
                f"CPU of a list of {VMS} VMs, {form}, {name}: ratio to before", ours, before
            )
    for (path, side), took in latencies.items():
        record.latency(f"GET {path}{side}", took)
    record.write()
