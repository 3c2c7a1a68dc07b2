"""Messages between the service manager and our processes (sd_notify(3), sd_listen_fds(3)):
readiness and status, watchdog messages, and the sockets that it passes.

Both services use it; it imports nothing of Mica.
"""

from __future__ import annotations

import asyncio
import os
import socket

__all__ = ["feed_watchdog", "notify", "passed_sockets", "watchdog_pause_s"]

_FIRST_FD = 3


def notify(*lines: str) -> bool:
    """Send a message, such as `READY=1` or `STATUS=…`; False if there is no manager, or it doesn't
    listen.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            sock.sendall("\n".join(lines).encode())
        except OSError:
            return False
    return True


def passed_sockets() -> list[socket.socket]:
    """The listening sockets that it passed to this very process; they are taken once."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not pid.isdigit() or int(pid) != os.getpid() or not count.isdigit():
        return []
    sockets = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        passed = socket.socket(fileno=fd)
        passed.setblocking(False)
        sockets.append(passed)
    return sockets


def watchdog_pause_s() -> float | None:
    """How often it wants to hear `WATCHDOG=1` from this process, with room: a third of the time
    that it allows; None if it doesn't."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not allowed.isdigit() or pid != str(os.getpid()):
        return None
    return int(allowed) / 3e6


async def feed_watchdog() -> None:
    """Report that the event loop runs, as often as the manager requires; cancelled at the end."""
    pause_s = watchdog_pause_s()
    while pause_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(pause_s)
