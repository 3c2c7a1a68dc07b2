"""Which host uses a datastore now: a lease in a file of the datastore itself; it blocks.

<root>/mica-lease, one block of 512 bytes that is rewritten in place:

  host    who holds it: the host's UUID, its name for people, and a mark of its machine
  counter goes up with every renewal: every few seconds while the datastore is mounted, where hosts
          can share it (NFS, a directory); on disks it doesn't change
  released true if it was detached in good order

  free, released, our own ------------------------------------> ours at once
  another's, its counter goes up ------------------------------> refused, unless forced
  another's, its counter stood still for SILENT_S -------------> ours, if requested
  another's, seen for the first time --------------------------> refused for now: look again

No host's wall clock is ever compared with another's: each looks whether the counter moves by its
own monotonic clock. `SILENT_S` is longer than a holder needs to notice that a server is silent (15
s, see host/nfs.py) and a renewal more.

Our own is what the same host on the same machine wrote: after a crash it gets its datastores back
at once. A copied stick in another machine has the host's UUID but another mark; such a lease is
another's, which may be taken without a request once it is silent (a stick that was moved).

Each look and change is made under flock(2), which NFS 4 servers keep among all clients. Without
such locks (NFS 3), a lease that was taken over is read again after `SETTLE_S`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vmkernel.host.files import create_file, open_regular
from vmkernel.model import ErrorCode
from vmkernel.model.volumes import SECTOR_BYTES
from vmkernel.storage.errors import StorageError
from vmkernel.storage.records import LeaseRecord, RecordError, decode, encode_compactly
from vmkernel.text import clean

__all__ = ["Identity", "LeaseHeld", "LeaseLost", "Leases", "SILENT_S", "TakeoverMode"]

_log = logging.getLogger(__name__)

SILENT_S = 30.0
SETTLE_S = 1.0
_NAME = "mica-lease"
_LOCK_TRIES = 20
_LOCK_WAIT_S = 0.1
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class TakeoverMode(Enum):
    """Which leases may be taken."""

    OWN = "own"
    """One that is free or our own."""
    SILENT = "silent"
    """Also another host's, once it is silent."""
    FORCE = "force"
    """Also another host's, whatever it does."""


@dataclass(frozen=True)
class Identity:
    uuid: str
    name: str
    machine: str = ""
    """A mark of the machine; empty if it has none."""


class LeaseHeld(StorageError):  # noqa: N818 - a state, told as a failure
    """Another host holds the datastore; `alive` if it was seen renewing the lease."""

    def __init__(self, holder: str, *, alive: bool) -> None:
        does = "is using it" if alive else "holds it, according to its lease"
        super().__init__(
            ErrorCode.IN_USE,
            f"{holder} {does}: unmount it there; or mount it here with take_over, and that host"
            " loses access.",
        )
        self.holder = holder
        self.alive = alive


class LeaseLost(StorageError):  # noqa: N818 - a state, told as a failure
    """Another host has taken the datastore over from us."""

    def __init__(self, holder: str) -> None:
        super().__init__(
            ErrorCode.IN_USE,
            f"{holder} has taken it over: no virtual machine may run on it here.",
        )


@dataclass
class _Seen:
    """Another host's lease as read."""

    raw: bytes
    since_s: float
    looked_s: float
    """When it was last read."""
    moved: bool = False
    """True if it had changed since the reading before."""


class Leases:
    """The leases of this host, by the datastores' UUIDs; calls for one datastore don't overlap."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._sleep = sleep
        self._held: dict[str, bytes] = {}
        self._seen: dict[str, _Seen] = {}

    def take(self, root: Path, uuid: str, mode: TakeoverMode) -> str | None:
        """Take the lease; returns the host that lost it. LeaseHeld, OSError."""
        with _opened(root, make=True) as file:
            raw = file.read()
            found = _parsed(raw)
            before = self._check(uuid, raw, found, mode)
            written = self._write(file, found.counter + 1 if found else 1)
            settled = file.locked or (found is not None and self._is_ours(found))
        if not settled:
            self._sleep(SETTLE_S)
            with _opened(root) as file:
                now = file.read()
            if now != written:
                self._seen[uuid] = _Seen(now, self._clock(), self._clock())
                raise LeaseHeld(_holder(_parsed(now)), alive=True)
        self._held[uuid] = written
        self._seen.pop(uuid, None)
        if before is not None:
            _log.warning("datastore %s is taken over from %s", uuid, before)
        return before

    def renew(self, root: Path, uuid: str) -> None:
        """Show that we are alive. LeaseLost if it isn't ours any more, OSError."""
        with _opened(root) as file:
            raw = file.read()
            found = _parsed(raw)
            if found is None:
                raise OSError(errno.EIO, "the lease can't be read", str(root / _NAME))
            if raw != self._held.get(uuid) and not self._is_ours(found):
                self._held.pop(uuid, None)
                raise LeaseLost(_holder(found))
            self._held[uuid] = self._write(file, found.counter + 1)

    def release(self, root: Path, uuid: str) -> None:
        """Release it if it is ours. OSError."""
        self._seen.pop(uuid, None)
        if self._held.pop(uuid, None) is None:
            return
        with _opened(root) as file:
            found = _parsed(file.read())
            if found is not None and self._is_ours(found):
                self._write(file, found.counter + 1, released=True)

    def holds(self, uuid: str) -> bool:
        """True if it was ours at the last reading."""
        return uuid in self._held

    # --- steps --------------------------------------------------------------------------------

    def _check(
        self, uuid: str, raw: bytes, found: LeaseRecord | None, mode: TakeoverMode
    ) -> str | None:
        """Refuse what may not be taken; else the host that loses it."""
        if not raw or (found is not None and (found.released or self._is_ours(found))):
            return None
        now = self._clock()
        seen = self._seen.get(uuid)
        if seen is None or seen.raw != raw:
            moved = seen is not None and now - seen.looked_s < SILENT_S
            seen = self._seen[uuid] = _Seen(raw, now, now, moved)
        seen.looked_s = now
        silent = now - seen.since_s >= SILENT_S
        # What was torn by a power cut, or written by ourselves on another machine, is waited for.
        unasked = found is None or found.host_uuid == self._identity().uuid
        if mode is TakeoverMode.FORCE or (silent and (mode is TakeoverMode.SILENT or unasked)):
            return _holder(found)
        raise LeaseHeld(_holder(found), alive=seen.moved and not silent)

    def _is_ours(self, found: LeaseRecord) -> bool:
        identity = self._identity()
        return (found.host_uuid, found.machine) == (identity.uuid, identity.machine)

    def _write(self, file: _File, counter: int, *, released: bool = False) -> bytes:
        identity = self._identity()
        record = LeaseRecord(
            host_uuid=identity.uuid,
            host_name=identity.name.encode("ascii", "replace")[:64].decode(),
            machine=identity.machine,
            counter=counter,
            released=released,
        )
        return file.write(encode_compactly(record))


class _File:
    def __init__(self, fd: int, *, locked: bool) -> None:
        self._fd = fd
        self.locked = locked
        """False if the file system has no locks."""

    def read(self) -> bytes:
        """The content; empty if nothing was ever written."""
        return os.pread(self._fd, SECTOR_BYTES, 0)

    def write(self, data: bytes) -> bytes:
        """Write it as one block, durable on return; returns what is read from now on."""
        block = data.ljust(SECTOR_BYTES - 1) + b"\n"
        if len(block) != SECTOR_BYTES or os.pwrite(self._fd, block, 0) != SECTOR_BYTES:
            raise OSError(errno.EIO, "the lease can't be written as a whole")
        return block


@contextlib.contextmanager
def _opened(root: Path, *, make: bool = False) -> Iterator[_File]:
    if make:
        with contextlib.suppress(FileExistsError):
            os.close(create_file(root / _NAME, 0o644))
    fd = open_regular(root / _NAME, os.O_RDWR | os.O_DSYNC, limit=SECTOR_BYTES)
    try:
        yield _File(fd, locked=_lock(fd))
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Wait for the lock, which others hold only briefly; False if there are no locks."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_WAIT_S)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        else:
            return True
    raise OSError(errno.EBUSY, "its lease is locked by another program")


def _parsed(raw: bytes) -> LeaseRecord | None:
    """None if it is torn or foreign."""
    try:
        return decode(LeaseRecord, raw)
    except RecordError:
        return None


def _holder(found: LeaseRecord | None) -> str:
    if found is None:
        return "An unknown host"
    return f"Host {clean(found.host_name, 64)} ({clean(found.host_uuid, 64)})"
