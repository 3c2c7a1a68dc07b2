"""NFS mounts by mount(2): the options as text, which the kernel's client reads itself (nfs(5)).

`mount.nfs` is not needed: it only looks up the server's address (`addr=`) and its own
(`clientaddr=`, which only NFS 4.0 callbacks use; the kernel works without).

Where no version is asked for, the newest is tried first: a server that doesn't speak it says so
(EPROTONOSUPPORT), as mount.nfs goes about it. Any other failure ends the search.

softerr   a call that the server leaves unanswered fails with ETIMEDOUT after timeo and its
          repetitions (`_TIMEO_DS`, `_RETRANS`: 5 s, then 10 s more), so that nothing of the
          host ever waits for ever. A guest whose disk times out is paused, not damaged:
          QEMU writes past the page cache and stops at the first error.
nolock    version 3 alone: its locks need rpc.statd on both sides, a network service that Mica
          doesn't run. Locks are local then: such a datastore is for one host at a time.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from pathlib import Path, PurePosixPath

from vmkernel.host.errors import HostError
from vmkernel.host.mounts import Mount, mount_text
from vmkernel.model import MicaError, NfsSpec, NfsVersion

__all__ = ["check_nfs", "mount_nfs", "nfs_options", "nfs_source", "resolve", "spoken_version"]

_TIMEO_DS = 50
"""In tenths of a second."""
_RETRANS = 1
_NFS_PORT = 2049
_NEWEST_FIRST = (NfsVersion.V4_2, NfsVersion.V4_1, NfsVersion.V4_0, NfsVersion.V3)
_NOT_SPOKEN = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?$(?!\n)")


def check_nfs(spec: NfsSpec) -> None:
    """`invalid` if the server or the export can't be valid; both become part of an
    option string.
    """
    if not _is_address(spec.server) and _HOST.match(spec.server) is None:
        raise MicaError.field(
            "/spec/nfs/server", f"{spec.server!r} is not a host name or an address."
        )
    path = PurePosixPath(spec.export)
    odd = [c for c in spec.export if not c.isprintable() or c in ",\\"]
    if not path.is_absolute() or odd or ".." in path.parts:
        raise MicaError.field(
            "/spec/nfs/export", "The export is an absolute path without commas or `..`."
        )
    if spec.mount_port is not None and spec.version is not NfsVersion.V3:
        raise MicaError.field("/spec/nfs/mount_port", "Only version 3 has a mount service.")


def resolve(server: str) -> str:
    """The server's address, IPv4 first. Blocks for as long as the resolver takes."""
    if _is_address(server):
        return server
    try:
        found = socket.getaddrinfo(server, _NFS_PORT, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HostError(f"The NFS server {server} has no address: {error.strerror}.") from error
    found.sort(key=lambda entry: entry[0] is not socket.AF_INET)
    return str(found[0][4][0])


def nfs_source(spec: NfsSpec) -> str:
    """The source of the mount, as mountinfo shows it."""
    host = f"[{spec.server}]" if ":" in spec.server else spec.server
    return f"{host}:{spec.export}"


def nfs_options(spec: NfsSpec, version: NfsVersion, address: str) -> str:
    six = ":" in address
    words = [
        f"vers={version.value}",
        f"proto={'tcp6' if six else 'tcp'}",
        f"addr={address}",
        "softerr",
        f"timeo={_TIMEO_DS}",
        f"retrans={_RETRANS}",
        "sec=sys",
    ]
    if version is NfsVersion.V3:
        words += ["nolock", f"mountproto={'tcp6' if six else 'tcp'}", f"mountaddr={address}"]
        if spec.mount_port is not None:
            words.append(f"mountport={spec.mount_port}")
        if spec.port is not None:
            words.append(f"port={spec.port}")
    else:
        words.append(f"port={spec.port or _NFS_PORT}")
        if version is NfsVersion.V4_0:
            words.append(f"clientaddr={'::' if six else '0.0.0.0'}")  # noqa: S104 - no listener
    return ",".join(words)


def mount_nfs(spec: NfsSpec, target: Path) -> None:
    """Mount the export (blocking; bounded by the options). OSError."""
    address = resolve(spec.server)
    versions = _NEWEST_FIRST if spec.version is None else (spec.version,)
    refusal: OSError | None = None
    for version in versions:
        kind = "nfs" if version is NfsVersion.V3 else "nfs4"
        try:
            mount_text(nfs_source(spec), target, kind, nfs_options(spec, version, address))
        except OSError as error:
            if error.errno not in _NOT_SPOKEN:
                raise
            refusal = error
        else:
            return
    assert refusal is not None
    raise refusal


def spoken_version(mount: Mount) -> NfsVersion | None:
    """The version that a mount uses."""
    words = [word.removeprefix("vers=") for word in mount.options if word.startswith("vers=")]
    return next((version for version in NfsVersion if version.value in words), None)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
