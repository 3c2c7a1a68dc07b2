"""What a host costs by how many virtual machines are defined on it: latency, memory, start.

Hosts with 0 to 1,000 VMs run side by side, and each round asks every one of them in turn. Their
clients keep their TLS connections open. What is asked of a host with one VM, and `GET /v1`, for
which the vmkernel looks at nothing, are the floors.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.benchmarks.many import DATASTORE, ManyVms, host_with, vm_name
from tests.benchmarks.records import REPEATS, Record

COUNTS = (0, 1, 100, 500, 1000)
GETS = 200
CHANGES = 10 * REPEATS
IDLE_S = 10.0
KIB, MIB = 1 << 10, 1 << 20
Hosts = dict[int, ManyVms]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The hosts by how many VMs they have."""
    folder = tmp_path_factory.mktemp("m")
    with ExitStack() as opened:
        yield {
            count: opened.enter_context(host_with(folder / str(count), count)) for count in COUNTS
        }


def _timed_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_memory_and_start(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> None:
    """First, while nothing has been asked of the hosts yet."""
    record = Record("many-vms-cost")
    pids = {count: many.host.pid("vmkernel") for count, many in hosts.items()}
    memory = {count: many.memory() for count, many in hosts.items()}
    for kind in ("Pss", "Private_Dirty"):
        for count, found in memory.items():
            record.figure(f"vmkernel with {count} VMs: {kind}", "MiB", [found[kind] / MIB])
        for count in COUNTS[2:]:
            a_vm = (memory[count][kind] - memory[0][kind]) / count / KIB
            record.figure(f"vmkernel: {kind} of each of {count} VMs", "KiB", [a_vm])
    before = {count: _cpu_s(pid) for count, pid in pids.items()}
    time.sleep(IDLE_S)
    for count, pid in pids.items():
        spent_ms = (_cpu_s(pid) - before[count]) * 1000
        record.figure(f"vmkernel idle for {IDLE_S:g} s with {count} VMs: CPU", "ms", [spent_ms])
    phases: dict[int, list[float]] = defaultdict(list)
    for many in hosts.values():
        phases[many.count].append(many.vmkernel_start_s())
    folder = tmp_path_factory.mktemp("s")
    for number in range(1, REPEATS):
        for count in (0, 1000):
            with host_with(folder / f"{count}-{number}", count) as many:
                phases[count].append(many.vmkernel_start_s())
    for count, seconds in phases.items():
        record.figure(f"vmkernel from its start to ready with {count} VMs", "s", seconds)
    record.ratio("vmkernel's start: ratio of 1000 VMs to none", phases[1000], phases[0])
    record.write()


def _asked(many: ManyVms) -> dict[str, Callable[[], object]]:
    """The calls of one round."""
    send = many.mica.transport.send
    calls: dict[str, Callable[[], object]] = {
        "GET /v1": lambda: send("GET", "/v1"),
        "GET /v1/vms, all": lambda: send("GET", "/v1/vms", parameters={"limit": 1000}),
        "GET /v1/vms, a page": lambda: send("GET", "/v1/vms"),
        "GET /v1/volumes, all": lambda: send("GET", "/v1/volumes", parameters={"limit": 1000}),
        "GET /metrics": lambda: send("GET", "/metrics"),
    }
    if many.count:
        one = f"/v1/vms/{vm_name(many.count // 2)}"
        calls |= {
            "GET one VM": lambda: send("GET", one),
            "GET one VM's stats": lambda: send("GET", f"{one}/stats"),
        }
    return calls


@pytest.mark.timeout(900)
def test_reading_latency(hosts: Hosts) -> None:
    record = Record("many-vms-reading")
    asked = {count: _asked(many) for count, many in hosts.items()}
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    document: list[float] = []
    send = hosts[0].mica.transport.send
    for number in range(GETS):
        for count, calls in asked.items():
            for name, call in calls.items():
                if "all" in name and count > 100 and number % 5:
                    continue  # a fifth of them says enough of what takes long
                times[(name, count)].append(_timed_ms(call))
        document.append(_timed_ms(lambda: send("GET", "/v1/openapi.json")))
    _note_latencies(record, times)
    size = len(send("GET", "/v1/openapi.json").body)
    record.latency(f"GET /v1/openapi.json ({size} bytes, kept ready)", document)
    listed = hosts[1000].mica.transport.send("GET", "/v1/vms", parameters={"limit": 1000})
    record.figure("GET /v1/vms, all, 1000 VMs: size", "bytes", [len(listed.body)])
    for name in ("GET /v1/vms, all", "GET /v1/vms, a page", "GET one VM", "GET /metrics"):
        for count in COUNTS[2:]:
            many, one = times[(name, count)], times[(name, 1)]
            record.ratio(f"{name}: ratio of {count} VMs to one", many, one[: len(many)])
    record.write()


@pytest.mark.timeout(600)
def test_changing_latency(hosts: Hosts) -> None:
    record = Record("many-vms-changing")
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    defined = [count for count in COUNTS if count]
    for number in range(CHANGES):
        for count in defined:
            mica = hosts[count].mica
            vm = mica.vm(vm_name(0))
            spec = replace(vm.spec, description=f"change {number}")
            times[("PUT, a change", count)].append(
                _timed_ms(lambda m=mica, v=vm, s=spec: m.replace_vm(v, s))  # type: ignore[misc]
            )
            fresh = replace(spec, disks=(), nics=(replace(spec.nics[0], mac=None),))
            times[("PUT, a new one", count)].append(
                _timed_ms(lambda m=mica, s=fresh: m.create_vm("fresh", s))  # type: ignore[misc]
            )
            times[("DELETE", count)].append(_timed_ms(lambda m=mica: m.delete_vm("fresh")))  # type: ignore[misc]
    for count in defined:  # the first start of a host has to look at QEMU
        mica = hosts[count].mica
        mica.wait(mica.start_vm(vm_name(0)))
        mica.wait(mica.power_off_vm(vm_name(0)))
    for number in range(REPEATS):
        for count in defined:
            mica = hosts[count].mica
            name = vm_name(number % count)
            times[("start, until QEMU runs", count)].append(
                _timed_ms(lambda m=mica, n=name: m.wait(m.start_vm(n)))  # type: ignore[misc]
            )
            times[("power-off", count)].append(
                _timed_ms(lambda m=mica, n=name: m.wait(m.power_off_vm(n)))  # type: ignore[misc]
            )
    _note_latencies(record, times)
    for name in ("PUT, a change", "PUT, a new one", "DELETE", "start, until QEMU runs"):
        record.ratio(f"{name}: ratio of 1000 VMs to one", times[(name, 1000)], times[(name, 1)])
    record.note("datastore", f"a directory on {_file_system(hosts[1].host.folder / DATASTORE)}")
    record.write()


def _note_latencies(record: Record, times: dict[tuple[str, int], list[float]]) -> None:
    names = list(dict.fromkeys(name for name, _ in times))
    for name, count in sorted(times, key=lambda key: (names.index(key[0]), key[1])):
        plural = "" if count == 1 else "s"
        record.latency(f"{name}, {count} VM{plural}", times[(name, count)])


def _file_system(path: Path) -> str:
    """The type of the file system below a path."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, found, *_ = line.split()
        if str(path).startswith(target) and len(target) >= len(best):
            best, kind = target, found
    return kind
