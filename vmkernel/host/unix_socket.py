"""Unix stream sockets by path, whatever the path's length.

The kernel takes at most 107 octets of path; a datastore in hosted mode may have a longer path. The
folder is opened, and the socket is addressed through its descriptor.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["connect_stream", "listen_stream", "present_sockets"]

_BACKLOG = 16
_TABLE = Path("/proc/net/unix")
_INODE_COLUMN = 6


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def _stream() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def listen_stream(path: Path, *, mode: int = 0o600) -> socket.socket:
    """Bind and listen, replacing an existing socket."""
    sock = _stream()
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with _reachable(path) as name:
            sock.bind(name)
        path.chmod(mode)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_stream(path: Path) -> socket.socket:
    """Connect; OSError if no process listens. A Unix socket connects at once or not at all."""
    sock = _stream()
    try:
        sock.setblocking(False)
        with _reachable(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def present_sockets() -> frozenset[int]:
    """The inodes of all Unix sockets that any process still has (proc_net(5))."""
    rows = (line.split() for line in _TABLE.read_text(errors="replace").splitlines()[1:])
    return frozenset(int(row[_INODE_COLUMN]) for row in rows if len(row) > _INODE_COLUMN)
