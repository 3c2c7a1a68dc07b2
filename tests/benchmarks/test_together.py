"""One virtual machine and twenty at once, against the same QEMUs started by hand."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_api.client.sdk import Mica
from tests.benchmarks.by_hand import FIRST_LINE, ByHand, add_guest, command_line, guest_spec, plain
from tests.benchmarks.records import REPEATS, Record
from tests.framework.hosted import hosted_mica
from tests.framework.talk import Talk

COUNT = 20
MEMORY_MIB = 128
LIMIT_S = 600.0
NAMES = tuple(f"one-of-{COUNT}-{number:02}" for number in range(COUNT))


def _together(work: Callable[[str], float], names: Sequence[str]) -> list[float]:
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(work, names))


def _ours(mica: Mica, names: Sequence[str]) -> tuple[list[float], list[float]]:
    """Seconds from the first request until each start was answered, and each first line."""
    began = time.monotonic()
    answered: dict[str, float] = {}

    def start(name: str) -> float:
        mica.wait(mica.start_vm(name))
        answered[name] = time.monotonic() - began
        with Talk(mica, name) as talk:
            talk.until(FIRST_LINE, timeout_s=LIMIT_S)
            return time.monotonic() - began

    lines = _together(start, names)
    return list(answered.values()), lines


def _by_hand(machines: Mapping[str, Sequence[str]], folder: Path) -> list[float]:
    began = time.monotonic()
    running: list[ByHand] = []

    def start(name: str) -> float:
        machine = ByHand(machines[name], folder / f"{name}.log")
        running.append(machine)
        machine.until(FIRST_LINE, timeout_s=LIMIT_S)
        return time.monotonic() - began

    try:
        return _together(start, list(machines))
    finally:
        for machine in running:
            machine.end()


def _round(found: dict[str, list[float]], mica: Mica, names: Sequence[str], folder: Path) -> None:
    """Ours, then the same by hand."""
    answered, lines = _ours(mica, names)
    machines = {name: plain(command_line(name, folder)) for name in names}
    for name in names:
        mica.wait(mica.power_off_vm(name))
    by_hand = _by_hand(machines, folder)
    found["answered"].append(max(answered))
    found["last"].append(max(lines))
    found["last by hand"].append(max(by_hand))
    found["median"].append(statistics.median(lines))
    found["median by hand"].append(statistics.median(by_hand))


@pytest.mark.timeout(1800)
def test_one_and_twenty_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    record = Record("started-together")
    folder = tmp_path_factory.mktemp("t")
    one: dict[str, list[float]] = defaultdict(list)
    many: dict[str, list[float]] = defaultdict(list)
    with hosted_mica(folder) as host:
        mica = Mica(host.address, token=host.token, fingerprint=host.fingerprint, timeout_s=60.0)
        add_guest(host, mica)
        for name in NAMES:
            mica.create_vm(name, guest_spec(MEMORY_MIB))
        _round(defaultdict(list), mica, NAMES[:1], folder)  # both find the files in memory then
        for _ in range(REPEATS):
            _round(one, mica, NAMES[:1], folder)
        for _ in range(REPEATS):
            _round(many, mica, NAMES, folder)
        mica.close()
    floor = "the same by hand"
    record.compare(
        "one VM: request to first line", "s", one["last"], one["last by hand"], floor=floor
    )
    record.figure(f"{COUNT} VMs: first request to all started", "s", many["answered"])
    for which in ("median", "last"):
        name = f"{COUNT} VMs: first request to the {which} first line"
        record.compare(name, "s", many[which], many[f"{which} by hand"], floor=floor)
    record.note("guest", f"{MEMORY_MIB} MiB, one processor, TCG, kernel started directly")
    record.write()
