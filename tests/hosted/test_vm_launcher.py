"""The start program of a VM's unit, compiled and run: what it accepts, and what it becomes."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmkernel
from appliance_build.assemble.initrd import compile_init
from tests.framework import inputs
from tests.framework.ending import started
from vmkernel.jail import Program, encode_handover
from vmkernel.jail.handover import FIRST_QEMU_FD

_LOAD, _EQUAL, _ANSWER = 0x20, 0x15, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_GETPRIORITY = 140
ANYTHING = struct.pack("=HBBI", _ANSWER, 0, 0, _ALLOW)
NO_PRIORITY = (
    b"".join(
        struct.pack("=HBBI", *line)
        for line in ((_LOAD, 0, 0, 0), (_EQUAL, 0, 1, _GETPRIORITY), (_ANSWER, 0, 0, _EPERM))
    )
    + ANYTHING
)
"""Filters of system calls (linux/filter.h)."""
ASK = """
import os, sys
try:
    os.getpriority(0, 0)
    print(sys.argv[1], "may")
except PermissionError:
    print(sys.argv[1], "may not")
"""
SOURCE = Path(vmkernel.__file__).parent / "jail" / "vm_launcher.c"
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.closerange(4, 256)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("launcher") / "vm-launcher"
    compile_init(inputs.tools(), SOURCE, program)
    return program


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


def handover(argv: list[str], beside: list[str] | None = None, calls: bytes = ANYTHING) -> bytes:
    other = None if beside is None else Program(beside, ANYTHING)
    return encode_handover(Program(argv, calls), other)


def run(launcher: Path, message: bytes, fds: list[int]) -> subprocess.CompletedProcess[bytes]:
    """Start it as systemd does: with the connection as descriptor 3 and no other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = started(
            [sys.executable, "-c", AS_SYSTEMD, str(theirs.fileno()), launcher],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        if message:
            socket.send_fds(ours, [message], fds)
        ours.shutdown(socket.SHUT_WR)
        out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess([], process.returncode, out, err)


def test_it_becomes_the_program(launcher: Path, log: int, tmp_path: Path) -> None:
    """Descriptors keep their numbers, the log takes the output, the environment is ours."""
    kept = os.memfd_create("kept")
    os.write(kept, b"handed over")
    script = f"cat <&{FIRST_QEMU_FD} ; ls /proc/self/fd | wc -l; env; echo $1"
    os.lseek(kept, 0, os.SEEK_SET)
    ended = run(launcher, handover(["/bin/sh", "-c", script, "sh", "a b"]), [log, kept])
    os.close(kept)
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "log").read_text()
    assert text.startswith("handed over")
    assert "LANG=C.UTF-8" in text
    assert "HOME" not in text
    assert text.endswith("a b\n")


def test_a_program_beside_it(launcher: Path, log: int, tmp_path: Path) -> None:
    """It has its own descriptor and no other; QEMU doesn't have that one."""
    qemus, besides = os.memfd_create("qemus"), os.memfd_create("besides")
    beside = ["/bin/sh", "-c", "ls /proc/self/fd | tr '\\n' ' ' >&3; echo beside"]
    script = f"sleep 1; cat <&{FIRST_QEMU_FD}; ls -l /proc/self/fd"
    os.write(qemus, b"for QEMU\n")
    os.lseek(qemus, 0, os.SEEK_SET)
    message = handover(["/bin/sh", "-c", script], beside)
    ended = run(launcher, message, [log, qemus, besides])
    assert ended.returncode == 0, ended.stderr
    os.lseek(besides, 0, os.SEEK_SET)
    assert os.read(besides, 100).split() == [b"0", b"1", b"2", b"3", b"4"]  # 4 is ls's own
    text = (tmp_path / "log").read_text()
    assert "beside" in text
    assert "for QEMU" in text
    assert "memfd:besides" not in text
    os.close(qemus)
    os.close(besides)


@pytest.mark.parametrize("who", ["QEMU", "beside"])
def test_each_program_has_its_own_filter(
    launcher: Path, log: int, tmp_path: Path, who: str
) -> None:
    program = [sys.executable, "-I", "-S", "-c"]
    calls = {name: NO_PRIORITY if name == who else ANYTHING for name in ("QEMU", "beside")}
    message = encode_handover(
        Program([*program, f"import time; time.sleep(1){ASK}", "QEMU"], calls["QEMU"]),
        Program([*program, ASK, "beside"], calls["beside"]),
    )
    ended = run(launcher, message, [log, log])
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "log").read_text()
    assert sorted(text.splitlines()) == [
        "QEMU may not" if who == "QEMU" else "QEMU may",
        "beside may not" if who == "beside" else "beside may",
    ]


@pytest.mark.parametrize(("length", "words"), [(0, "filter"), (4097, "filter"), (2, "cut off")])
def test_nothing_starts_without_a_filter(launcher: Path, log: int, length: int, words: str) -> None:
    message = bytearray(handover(["/bin/true"]))
    struct.pack_into("=I", message, 20, length)
    ended = run(launcher, bytes(message), [log])
    assert ended.returncode == 70
    assert words in ended.stderr.decode()


def test_a_filter_that_the_kernel_refuses(launcher: Path, log: int, tmp_path: Path) -> None:
    ended = run(launcher, handover(["/bin/true"], calls=bytes(8)), [log])
    assert ended.returncode == 71
    assert "filter can't be put on" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "no message"),
        (b"\0" * 24, "can't be understood"),
        (b"\0" * 16, "cut off"),
        (handover(["/bin/true"])[:-1], "cut off"),
        (handover(["/bin/true"])[:6], "cut off"),
    ],
)
def test_it_refuses(launcher: Path, log: int, message: bytes, words: str) -> None:
    ended = run(launcher, message, [log])
    assert ended.returncode == 70
    assert words in ended.stderr.decode()


def test_a_program_that_is_not_there(launcher: Path, log: int, tmp_path: Path) -> None:
    ended = run(launcher, handover(["/none"]), [log])
    assert ended.returncode == 71
    assert "can't be started" in (tmp_path / "log").read_text()


def test_without_descriptors(launcher: Path) -> None:
    ended = run(launcher, handover(["/bin/true"]), [])
    assert ended.returncode == 70
    assert "no descriptors" in ended.stderr.decode()
