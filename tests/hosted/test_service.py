"""The API's process as systemd starts it: passed socket, readiness, watchdog, its cost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remote_api.client.http.pinning import fetch_fingerprint
from tests.framework.ending import started
from tests.framework.hosted import HostedMica
from tests.framework.repository import REPOSITORY

pytestmark = pytest.mark.alone

AS_SYSTEMD_DOES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
RSS_LIMIT_BYTES = 45 << 20
"""What the README promises."""


@pytest.fixture
def listener() -> socket.socket:
    """A listening socket, as a socket unit has."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    sock.listen(64)
    return sock


def test_passed_socket_readiness_and_watchdog(
    host: HostedMica, listener: socket.socket, tmp_path: Path
) -> None:
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "n"))
    notices.settimeout(20)
    control = host.folder / "state/run/control.sock"
    words = [sys.executable, "-m", "remote_api", "--control", str(control)]
    began = time.monotonic()
    process = started(
        [sys.executable, "-c", AS_SYSTEMD_DOES, str(listener.fileno()), *words],
        pass_fds=[listener.fileno()],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "LISTEN_FDS": "1",
            "NOTIFY_SOCKET": str(tmp_path / "n"),
            "WATCHDOG_USEC": "1500000",
        },
    )
    try:
        assert notices.recv(100).startswith(b"READY=1")
        ready_s = time.monotonic() - began
        port = listener.getsockname()[1]
        for address in (f"https://127.0.0.1:{port}", f"https://[::1]:{port}"):
            assert fetch_fingerprint(address) == host.fingerprint
        assert notices.recv(100) == b"WATCHDOG=1"
        assert notices.recv(100) == b"WATCHDOG=1"
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        rss = pages * os.sysconf("SC_PAGE_SIZE")
        print(f"ready after {ready_s:.2f} s, RSS {rss / (1 << 20):.1f} MiB")
        assert rss <= RSS_LIMIT_BYTES
        process.send_signal(signal.SIGTERM)
        while notices.recv(100) != b"STOPPING=1":
            pass
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        notices.close()
        listener.close()


def test_no_vmkernel_is_said_and_bounded(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "remote_api", "--control", str(tmp_path / "none")),
            *("--listen", "127.0.0.1:0", "--identity-timeout", "0.5"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "No TLS identity from the vmkernel" in done.stderr
    assert "Traceback" not in done.stderr
