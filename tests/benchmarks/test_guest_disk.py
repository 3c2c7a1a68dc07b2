"""A guest's disk against the same file in a plain QEMU, and read on the host itself.

One reader (tests/framework/guest/speed.c) does it in all three places: one request at a time, past
the page cache. The file is raw, allocated and written once before.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote_api.client.sdk import Mica
from tests.benchmarks.by_hand import (
    ACCELERATOR,
    DATASTORE,
    add_guest,
    by_hand,
    guest_spec,
    qemu,
)
from tests.benchmarks.records import REPEATS, Record
from tests.framework.guest import guest_files
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.hosted import hosted_mica
from tests.framework.talk import Talk
from vmkernel.model import Allocation, DiskSpec, VolumeFormat, VolumeSpec

KIB, MIB = 1 << 10, 1 << 20
MEMORY_MIB = 256
DISK_BYTES = 256 * MIB
UP = "MICA GUEST UP"
SAID = re.compile(r"requests (\d+) us (\d+) median_us (\d+) p99_us (\d+)")


@dataclass(frozen=True)
class Load:
    """What the reader does."""

    what: str
    order: str
    block: int
    requests: int

    @property
    def name(self) -> str:
        """In words."""
        size = f"{self.block // MIB} MiB" if self.block >= MIB else f"{self.block // KIB} KiB"
        return f"{self.order} {self.what} of {size}"

    def command(self, disk: str) -> str:
        """As the reader takes it."""
        return f"{disk} {self.what} {self.order} {self.block} {DISK_BYTES} {self.requests}"


LOADS = (
    Load("write", "sequential", MIB, 256),
    Load("read", "sequential", MIB, 256),
    Load("write", "random", 4 * KIB, 4096),
    Load("read", "random", 4 * KIB, 4096),
)
Place = dict[tuple[str, str], list[float]]


def _measure(found: Place, run: Callable[[Load], str]) -> None:
    for load in LOADS:
        said = run(load)
        match = SAID.search(said)
        assert match, said
        requests, took_us, median_us, p99_us = map(int, match.groups())
        if load.order == "sequential":
            found[(load.name, "throughput")].append(load.block * requests / MIB / took_us * 1e6)
        else:
            found[(load.name, "median latency")].append(median_us)
            found[(load.name, "p99 latency")].append(p99_us)


def _on_the_host(found: Place, file: Path) -> None:
    def run(load: Load) -> str:
        argv = [str(guest_files().init), *load.command(str(file)).split()]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout

    _measure(found, run)


def _plainly(found: Place, file: Path, log: Path) -> None:
    guest = guest_files()
    argv = qemu(
        *("-accel", ACCELERATOR, "-machine", "q35", "-cpu", "max", "-m", str(MEMORY_MIB)),
        *("-drive", f"file={file},format=raw,if=virtio,cache=none,aio=native"),
        *("-kernel", str(guest.vmlinux), "-initrd", str(guest.initrd), "-append", COMMAND_LINE),
        *("-serial", "stdio"),
    )
    with by_hand(argv, log) as machine:
        machine.until(UP)
        _measure(found, lambda load: machine.ask(f"speed {load.command('vda')}", "speed vda", 300))


def _by_mica(found: Place, mica: Mica) -> None:
    mica.wait(mica.start_vm("reader"))
    with Talk(mica, "reader") as talk:
        talk.until(UP)
        _measure(found, lambda load: talk.ask(f"speed {load.command('vda')}", "speed vda", 300))
    mica.wait(mica.power_off_vm("reader"))


@pytest.mark.timeout(1800)
def test_a_guests_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    record = Record("guest-disk")
    folder = tmp_path_factory.mktemp("d")
    ours: Place = defaultdict(list)
    plainly: Place = defaultdict(list)
    bare: Place = defaultdict(list)
    with hosted_mica(folder) as host:
        mica = Mica(host.address, token=host.token, fingerprint=host.fingerprint, timeout_s=60.0)
        add_guest(host, mica)
        volume = VolumeSpec(
            datastore=DATASTORE,
            size_bytes=DISK_BYTES,
            format=VolumeFormat.RAW,
            allocation=Allocation.THICK,
        )
        mica.wait(mica.create_volume("data", volume))
        mica.create_vm("reader", guest_spec(MEMORY_MIB, (DiskSpec(volume="data"),)))
        file = host.folder / "datastores" / DATASTORE / "volumes/data.raw"
        _on_the_host(defaultdict(list), file)
        for _ in range(REPEATS):
            _by_mica(ours, mica)
            _plainly(plainly, file, folder / "by-hand.log")
            _on_the_host(bare, file)
        mica.close()
    for (load, what), values in ours.items():
        unit = "MiB/s" if what == "throughput" else "us"
        name = f"{load}: {what}"
        record.compare(name, unit, values, plainly[(load, what)], floor="plain QEMU")
        record.figure(f"{name}, on the host", unit, bare[(load, what)])
    record.note("guest", f"{MEMORY_MIB} MiB, one processor, TCG; one request at a time, O_DIRECT")
    record.write()
