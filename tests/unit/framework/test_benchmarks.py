"""The parts of the benchmarks that could be wrong without anybody's noticing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.by_hand import plain
from tests.benchmarks.records import percentile, table


def test_a_plain_qemu_has_the_same_devices_and_nobody_to_manage_it() -> None:
    words = [
        *("qemu", "-name", "guest=a", "-S", "-m", "128M"),
        *("-chardev", "socket,id=qmp,fd=8,server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "socket,id=serial0-socket,fd=9,server=on,wait=off"),
        *("-chardev", "ringbuf,id=serial0-ring,size=65536"),
        *("-chardev", "hub,id=serial0-hub,chardevs.0=serial0-socket,chardevs.1=serial0-ring"),
        *("-device", '{"driver":"isa-serial","id":"serial0","chardev":"serial0-hub"}'),
        *("-chardev", "socket,id=agent,fd=10,server=on,wait=off"),
    ]
    assert plain(words) == [
        *("qemu", "-name", "guest=a", "-m", "128M"),
        *("-chardev", "stdio,id=serial0-hub,signal=off"),
        *("-device", '{"driver":"isa-serial","id":"serial0","chardev":"serial0-hub"}'),
        *("-chardev", "null,id=agent"),
    ]


def test_percentiles() -> None:
    assert percentile([float(number) for number in range(100)], 0.99) == 99.0
    assert percentile([3.0], 0.99) == 3.0


def test_the_table_holds_every_figure(tmp_path: Path) -> None:
    figures = {
        "list": {"unit": "ms", "n": 3, "median": 1.234, "min": 1.0, "max": 1234.5, "p99": 2.5},
        "size": {"unit": "bytes", "n": 1, "median": 1412023, "min": 1412023, "max": 1412023},
        "ratio": {"unit": "", "n": 3, "median": 0.8675, "min": 0.5, "max": 1.5},
    }
    (tmp_path / "some.json").write_text(json.dumps({"benchmark": "some", "figures": figures}))
    assert table(tmp_path).splitlines()[2:] == [
        "| some | list | 1.23 ms | 1 to 1,234 | 3 | 2.50 |",
        "| some | size | 1,412,023 bytes | 1,412,023 to 1,412,023 | 1 |  |",
        "| some | ratio | 0.868 | 0.5 to 1.50 | 3 |  |",
    ]
