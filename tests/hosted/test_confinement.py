"""What a worker can still do once it is confined: asked of a real process."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.framework.repository import REPOSITORY
from vmkernel.host.seccomp import compile_filter
from vmkernel.jail.roles import TOOL

MIB = 1 << 20
PROBE = """
import ctypes, os, socket, sys
def tried(name, work):
    try:
        work()
        print(name, 'works')
    except (OSError, MemoryError) as error:
        print(name, getattr(error, 'errno', None))
folder = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def unshare():
    if libc.unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), 'unshare')
def fill():
    with open(folder + '/given', 'wb') as file:
        file.write(bytes(3 << 20))
tried('given', lambda: open(folder + '/given', 'r+b').close())
tried('other', lambda: open(folder + '/other', 'wb').close())
tried('socket', lambda: socket.socket())
tried('unshare', unshare)
tried('memory', lambda: bytearray(1 << 30))
tried('size', fill)
print('seccomp', open('/proc/self/status').read().split('Seccomp:')[1].split()[0])
"""


def _landlock() -> bool:
    import ctypes

    return bool(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 1)


def _probe(folder: Path, *, parent: int) -> subprocess.CompletedProcess[str]:
    policy = {
        "parent": parent,
        "memory_bytes": 512 * MIB,
        "file_bytes": 2 * MIB,
        "read": ["/"],
        "write": [str(folder / "given")],
        "network": False,
        "calls": base64.b64encode(compile_filter(TOOL)).decode(),
    }
    words = [sys.executable, "-s", "-P", "-m", "vmkernel.workers.become", json.dumps(policy)]
    return subprocess.run(
        [*words, sys.executable, "-c", PROBE, str(folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_confined_process_keeps_what_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "given").touch()
    done = _probe(tmp_path, parent=os.getpid())
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert found.pop("other") == ("13" if _landlock() else "works")
    assert found == {
        "given": "works",
        "socket": "1",
        "unshare": "1",
        "memory": "None",
        "size": "27",
        "seccomp": "2",
    }, done.stderr


def test_it_does_not_begin_for_a_parent_that_has_gone(tmp_path: Path) -> None:
    done = _probe(tmp_path, parent=1 << 22)
    assert (done.returncode, done.stdout) == (1, "")
