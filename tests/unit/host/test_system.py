"""Small files of the system: units' processes, configuration that others read."""

from __future__ import annotations

import os
from pathlib import Path

from vmkernel.host.system import System


def test_the_oldest_process_of_a_unit_counts(tmp_path: Path) -> None:
    for name, text in (
        ("a.service/cgroup.procs", "31\n30\n"),
        ("b.service/cgroup.procs", ""),
        ("b.service/udev/cgroup.procs", "12\n"),
        ("c.service/cgroup.procs", ""),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert System.main_pid("a.service", tmp_path) == 30
    assert System.main_pid("b.service", tmp_path) == 12
    assert System.main_pid("c.service", tmp_path) is None
    assert System.main_pid("d.service", tmp_path) is None


def test_others_can_read_what_is_written_for_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        path = tmp_path / "network/x.network"
        assert System.write(path, "text\n")
        assert not System.write(path, "text\n")
        assert System.write(path, "other\n")
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.stat().st_mode & 0o777 == 0o644
    assert System.remove(path)
    assert not System.remove(path)
