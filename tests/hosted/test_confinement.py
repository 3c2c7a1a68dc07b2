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
from vmkernel.jail.calls import CallFilter
from vmkernel.jail.roles import FETCH_WORKER, TOOL

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


NETWORK_PROBE = """
import ipaddress, socket
from vmkernel.host.route_lookup import stays_here
def tried(name, work):
    try:
        print(name, work())
    except OSError as error:
        print(name, error.errno)
def opens(*words):
    return lambda: bool(socket.socket(*words))
tried('own', lambda: stays_here(ipaddress.ip_address('127.0.0.1')))
tried('own6', lambda: stays_here(ipaddress.ip_address('::1')))
tried('other', lambda: stays_here(ipaddress.ip_address('192.0.2.1')))
tried('inet', opens(socket.AF_INET))
tried('inet6', opens(socket.AF_INET6))
tried('audit', opens(socket.AF_NETLINK, socket.SOCK_RAW, 9))
tried('firewall', opens(socket.AF_NETLINK, socket.SOCK_RAW, 12))
tried('unix', opens(socket.AF_UNIX))
tried('packet', opens(socket.AF_PACKET, socket.SOCK_RAW))
tried('vsock', opens(socket.AF_VSOCK))
"""


def _landlock() -> bool:
    import ctypes

    return bool(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 1)


def _probe(
    folder: Path, *, parent: int, program: str = PROBE, calls: CallFilter = TOOL
) -> subprocess.CompletedProcess[str]:
    policy = {
        "parent": parent,
        "memory_bytes": 512 * MIB,
        "file_bytes": 2 * MIB,
        "read": ["/"],
        "write": [str(folder / "given")],
        "network": calls is not TOOL,
        "calls": base64.b64encode(compile_filter(calls)).decode(),
    }
    words = [sys.executable, "-s", "-P", "-m", "vmkernel.workers.exec_confined", json.dumps(policy)]
    return subprocess.run(
        [*words, sys.executable, "-c", program, str(folder)],
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


def test_who_fetches_asks_for_routes_and_reaches_the_internet_alone(tmp_path: Path) -> None:
    # `exec_confined` starts another program, which a worker that fetches never does.
    calls = CallFilter(FETCH_WORKER.allowed | {"execve"}, FETCH_WORKER.limited)
    (tmp_path / "given").touch()
    done = _probe(tmp_path, parent=os.getpid(), program=NETWORK_PROBE, calls=calls)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert found == {
        "own": "True",
        "own6": "True",
        "other": "False",
        "inet": "True",
        "inet6": "True",
        "audit": "1",
        "firewall": "1",
        "unix": "1",
        "packet": "1",
        "vsock": "1",
    }, done.stderr


def test_it_does_not_begin_for_a_parent_that_has_gone(tmp_path: Path) -> None:
    done = _probe(tmp_path, parent=1 << 22)
    assert (done.returncode, done.stdout) == (1, "")
