"""The kernel interfaces that VMs need: sockets by long paths, locks, groups, accounts."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from firmware.guest_firmware import find_uefi
from vmkernel.host.accounts import ensure_account
from vmkernel.host.cgroup import Cgroup
from vmkernel.host.detached import find_detached, start_detached
from vmkernel.host.file_io import takes_direct_io
from vmkernel.host.kvm import glance_at_kvm
from vmkernel.host.unix_socket import connect_stream, listen_stream


def test_sockets_below_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    path = folder / "qmp.sock"
    with listen_stream(path) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        with connect_stream(path) as client:
            accepted, _ = listener.accept()
            client.setblocking(True)
            client.send(b"x")
            assert accepted.recv(1) == b"x"
            accepted.close()
    with pytest.raises(ConnectionRefusedError):
        connect_stream(path)
    listen_stream(path).close()
    with pytest.raises(FileNotFoundError):
        connect_stream(folder / "none.sock")


def test_a_lock_that_nobody_holds_is_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert find_detached(lock) is None
    lock.write_text(f"{os.getpid()}\n")
    assert find_detached(lock) is None
    with lock.open("r+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        found = find_detached(lock)
        assert found is not None
        assert found.pid == os.getpid()
        found.close()
        lock.write_text("not a number\n")
        assert find_detached(lock) is None


def test_a_process_is_found_whose_number_was_never_written(tmp_path: Path) -> None:
    """As where the vmkernel was killed between its start and the writing of the number."""
    lock = tmp_path / "qemu.lock"
    with (tmp_path / "log").open("wb") as log:
        process = start_detached(["sleep", "60"], lock=lock, log=log.fileno(), pass_fds=())
    try:
        os.truncate(lock, 0)
        found = find_detached(lock)
        assert found is not None
        assert found.pid == process.pid
        found.close()
    finally:
        process.kill()
        assert process.child is not None
        process.child.wait()
        process.close()
    assert find_detached(lock) is None


def test_control_groups(tmp_path: Path) -> None:
    group = Cgroup("mica.slice/vm", root=tmp_path)
    assert not group.populated()
    assert group.memory_bytes() is None
    group.kill()
    folder = tmp_path / "mica.slice" / "vm"
    folder.mkdir(parents=True)
    (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (folder / "memory.current").write_text("4096\n")
    assert group.populated()
    assert group.memory_bytes() == 4096
    group.kill()
    (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert not group.populated()
    (folder / "cgroup.events").unlink()
    (folder / "cgroup.events").mkdir()
    with pytest.raises(OSError, match="directory"):
        group.populated()


def test_accounts_are_added_once(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:*:0:0:root:/:/usr/sbin/nologin")
    (tmp_path / "group").write_text("root:*:0:\n")
    for _ in range(2):
        ensure_account("mica-vm-100000", 100000, etc=tmp_path)
    assert (tmp_path / "passwd").read_text().splitlines() == [
        "root:*:0:0:root:/:/usr/sbin/nologin",
        "mica-vm-100000:*:100000:100000::/:/usr/sbin/nologin",
    ]
    assert (tmp_path / "group").read_text().splitlines()[1:] == ["mica-vm-100000:*:100000:"]
    assert (tmp_path / "passwd").stat().st_mode & 0o777 == 0o644


def test_direct_io_of_what_is_not_there(tmp_path: Path) -> None:
    assert not takes_direct_io(tmp_path / "none")


def test_a_glance_at_what_is_no_kvm(tmp_path: Path) -> None:
    missing = glance_at_kvm(tmp_path / "kvm")
    assert not missing.usable
    assert "no /dev/kvm" in (missing.reason or "")
    (tmp_path / "kvm").write_text("")
    other = glance_at_kvm(tmp_path / "kvm")
    assert not other.usable
    assert "can't create a VM" in (other.reason or "")


def test_firmware_is_found_by_its_files(tmp_path: Path) -> None:
    assert find_uefi(folders=(tmp_path,)) is None
    (tmp_path / "edk2" / "ovmf").mkdir(parents=True)
    for name in ("OVMF_CODE.fd", "OVMF_VARS.fd"):
        (tmp_path / "edk2" / "ovmf" / name).touch()
    found = find_uefi(folders=(tmp_path,))
    assert found is not None
    assert found.code == (tmp_path / "edk2/ovmf/OVMF_CODE.fd").resolve()
