"""The kernel's counters, from made-up trees and from this machine."""

from __future__ import annotations

import os
from pathlib import Path

from vmkernel.host.cgroup import Cgroup
from vmkernel.host.counters import (
    block_counters,
    cpu_seconds,
    interface_counters,
    pressure_seconds,
    process_cpu_seconds,
    resident_bytes,
    thread_times,
)

NET = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
  eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4 0 0 0 0
"""
DISKS = """\
   8       0 sda 100 1 2000 300 50 2 4000 600 0 700 900 0 0 0 0
   8       1 sda1 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9
   7       0 loop0 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9
"""


def test_a_made_up_host(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 500 100 200 3000 10 5 6 7 400 0\nintr 1 2\n"
    )
    (tmp_path / "net").mkdir()
    (tmp_path / "net/dev").write_text(NET)
    (tmp_path / "diskstats").write_text(DISKS)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/io").write_text(
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0 total=9\n"
    )
    for name in ("sda", "loop0"):
        (tmp_path / "block" / name).mkdir(parents=True)
    seconds = cpu_seconds(tmp_path)
    assert list(seconds) == [0]
    assert (seconds[0]["user"], seconds[0]["guest"], seconds[0]["idle"]) == (1.0, 4.0, 30.0)
    assert pressure_seconds(tmp_path) == {"io": 2.5}
    found = block_counters(tmp_path, tmp_path)
    assert list(found) == ["sda"]
    disk = found["sda"]
    assert (disk.read_operations, disk.read_bytes, disk.read_seconds) == (100, 1024000, 0.3)
    assert (disk.write_operations, disk.write_bytes, disk.write_seconds) == (50, 2048000, 0.6)
    assert disk.busy_seconds == 0.7
    link = interface_counters(tmp_path)["eth0"]
    assert (link.received_bytes, link.received_errors, link.received_dropped) == (1000, 1, 2)
    assert (link.sent_bytes, link.sent_packets, link.sent_dropped) == (2000, 20, 4)


def test_nothing_there(tmp_path: Path) -> None:
    assert cpu_seconds(tmp_path) == {}
    assert pressure_seconds(tmp_path) == {}
    assert block_counters(tmp_path, tmp_path) == {}
    assert interface_counters(tmp_path) == {}
    assert thread_times(1, tmp_path) == []
    assert process_cpu_seconds(1, tmp_path) == 0.0
    assert resident_bytes(1, tmp_path) == 0


def test_this_process() -> None:
    assert resident_bytes("self") > 1 << 20
    assert process_cpu_seconds(os.getpid()) > 0
    assert any(thread.seconds > 0 for thread in thread_times(os.getpid()))
    assert cpu_seconds()


def test_a_group_s_processes_by_program(tmp_path: Path) -> None:
    (tmp_path / "vm/below").mkdir(parents=True)
    (tmp_path / "vm/cgroup.procs").write_text("1\n4194305\n")
    (tmp_path / "vm/below/cgroup.procs").write_text(f"{os.getpid()}\n")
    group = Cgroup("vm", root=tmp_path)
    ours = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert os.getpid() in group.processes(ours)
    assert group.processes("qemu-system-x86_64") == ()
