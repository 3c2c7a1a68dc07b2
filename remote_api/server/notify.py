"""What systemd and this process tell each other: passed sockets and READY (sd_notify(3))."""

from __future__ import annotations

import os
import socket

__all__ = ["notify", "passed_sockets", "watchdog_pause_s"]

_FIRST_FD = 3


def passed_sockets() -> list[socket.socket]:
    """The listening sockets that systemd passed to this process, if any (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    sockets = []
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        sockets.append(sock)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return sockets


def notify(state: str) -> None:
    """Tell the service manager, where there is one; such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode("utf-8"), address)


def watchdog_pause_s() -> float | None:
    """How often systemd wants to hear `WATCHDOG=1`, with room; None where it doesn't."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not allowed.isdigit() or pid != str(os.getpid()):
        return None
    return int(allowed) / 3e6
