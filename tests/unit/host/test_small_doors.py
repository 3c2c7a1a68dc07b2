"""The smaller doors to Linux: what is mounted, what blkid says, systemd's protocol."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vmkernel.host.blkid import _parse
from vmkernel.host.files import allocate, make_directory, read_limited
from vmkernel.host.mounts import Mount, mount, mounts, unmount
from vmkernel.service_manager import notify, passed_sockets


def test_mounts_are_read(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "26 1 254:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw\n"
        r"44 27 259:1 / /run/with\040space rw,nosuid - xfs /dev/loop0p1 rw,inode64" + "\n"
    )
    assert mounts(table) == (
        Mount("254:1", Path("/"), "ext4", "/dev/vda1", ("rw",), ("rw", "relatime")),
        Mount(
            "259:1",
            Path("/run/with space"),
            "xfs",
            "/dev/loop0p1",
            ("rw", "inode64"),
            ("rw", "nosuid"),
        ),
    )


def test_signatures_are_read() -> None:
    found = _parse("DEVNAME=/dev/vda1\nLABEL=my\\ data\nUUID=abc\nTYPE=xfs\nUSAGE=filesystem\n")
    assert (found.filesystem, found.label, found.uuid, found.blank) == (
        "xfs",
        "my data",
        "abc",
        False,
    )
    assert _parse("DEVNAME=/dev/vda\nPTTYPE=gpt\n").partition_table == "gpt"
    assert _parse("").blank


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1", "STATUS=up")
        assert sock.recv(100) == b"READY=1\nSTATUS=up"
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("pid", "count"), [("", ""), ("1", "1"), ("self", "x"), ("self", ""), ("x", "1")]
)
def test_sockets_of_others_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, pid: str, count: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "self" else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    assert passed_sockets() == []
    assert "LISTEN_FDS" not in os.environ


def test_small_files_are_read_carefully(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(OSError, match="too large"):
        read_limited(path, 4)
    (tmp_path / "link").symlink_to(path)
    for name in ("link", ".", "missing"):
        with pytest.raises(OSError, match=r"."):
            read_limited(tmp_path / name, 5)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        read_limited(tmp_path / "pipe", 5)


def test_directories_are_made_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_directory(tmp_path / "d")
        make_directory(tmp_path / "d")
    finally:
        os.umask(before)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o755
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OSError, match="not a folder"):
        make_directory(tmp_path / "f")


def test_blocks_are_reserved(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        if allocate(file.fileno(), 1 << 20):
            assert os.fstat(file.fileno()).st_size == 1 << 20
        with pytest.raises(OSError, match=r"."):
            allocate(file.fileno(), 1 << 62)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_on_a_datastore_no_link_device_or_program_counts(tmp_path: Path) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    try:
        mount(Path("none"), target, "tmpfs")
    except PermissionError:
        pytest.skip("this container may not mount")
    try:
        (found,) = [entry for entry in mounts() if entry.target == target]
        assert {"nosuid", "nodev", "noexec", "nosymfollow"} <= set(found.flags)
        (target / "file").write_bytes(b"data")
        (target / "link").symlink_to(target / "file")
        with pytest.raises(OSError, match="symbolic links"):
            (target / "link").read_bytes()
        (target / "program").write_text("#!/bin/sh\n")
        (target / "program").chmod(0o4755)
        assert not os.access(target / "program", os.X_OK)
    finally:
        unmount(target)
