"""How QEMU gets at its disks' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.vm.sample import disk
from vmkernel.devices import Aio
from vmkernel.host.file_io import linux_aio_works
from vmkernel.model import DiskBus
from vmkernel.vm.start import files as start_files


@pytest.mark.parametrize(
    ("direct", "takes_direct", "room", "expected"),
    [
        (True, True, True, (Aio.NATIVE, True)),
        (True, True, False, (Aio.THREADS, True)),
        (True, False, True, (Aio.THREADS, False)),
        (False, True, True, (Aio.THREADS, False)),
    ],
)
def test_linux_aio_goes_past_the_page_cache_alone(
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    takes_direct: bool,
    room: bool,
    expected: tuple[Aio, bool],
) -> None:
    monkeypatch.setattr(start_files, "takes_direct_io", lambda _: takes_direct)
    monkeypatch.setattr(start_files, "linux_aio_works", lambda: room)
    plan = start_files.with_access(disk(DiskBus.VIRTIO_BLK, direct=direct))
    assert (plan.aio, plan.direct) == expected


def test_the_system_s_share_of_aio_is_asked_for() -> None:
    share = int(Path("/proc/sys/fs/aio-max-nr").read_text())
    assert not linux_aio_works(loops=share // 1024 + 1)
