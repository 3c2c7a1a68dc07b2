"""A datastore in a directory that an NFS server exports.

Every access to the server is made in its own thread with a time-out (`BlockingCalls`), and the
mount itself gives up on a server that is silent, so that a dead one makes its datastore `missing`
and delays nothing else. It is mounted again when it answers again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.errors import HostError, from_os_error
from vmkernel.host.mounts import unmount
from vmkernel.host.nfs import check_nfs, mount_nfs, nfs_source, spoken_version
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DatastoreStatus,
    ErrorCode,
    MicaError,
    NfsSpec,
    NfsVersion,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers.base import (
    Attached,
    CreateOptions,
    DatastoreDriver,
    Observation,
    Report,
)
from vmkernel.storage.drivers.mounting import Mounting, open_tree, remove_directory
from vmkernel.storage.errors import DatastoreMissing

__all__ = ["NfsDriver"]

T = TypeVar("T")
_MOUNT_S = 60.0
_PROBE_S = 20.0
"""Longer than the mount's own time-out, so that its error is reported and not ours."""
_NOT_THERE = {
    errno.ETIMEDOUT,
    errno.EIO,
    errno.ESTALE,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.ECONNRESET,
    errno.ENOTCONN,
}


@dataclass(frozen=True)
class _NfsObservation(Observation):
    version: NfsVersion | None = None

    def complete(self, status: DatastoreStatus) -> DatastoreStatus:
        return msgspec.structs.replace(super().complete(status), nfs_version=self.version)


class NfsDriver(DatastoreDriver):
    """NFS 3 and 4."""

    kind = DatastoreKind.NFS
    remote = True
    shared = True

    def __init__(self, mounting: Mounting, blocking: BlockingCalls) -> None:
        self._mounting = mounting
        self._blocking = blocking

    async def check(self, spec: DatastoreSpec, options: CreateOptions) -> None:
        """Refuse at once what can be judged without the server."""
        check_nfs(_nfs_of(spec))
        if options.wipe_serials:
            raise MicaError.field("/wipe_serials/0", "An NFS export is never wiped.")

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, report: Report
    ) -> Attached:
        """Make the tree in an empty export, or adopt an existing one."""
        await self.check(spec, options)
        report("mount")
        nfs = _nfs_of(spec)
        return await self._open(datastore_id, nfs, expected=None, make=not options.adopt)

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Mount the export again."""
        return await self._open(stored.id, _nfs_of(stored.spec), expected=stored.uuid, make=False)

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None:
        """Unmount; if the server is silent, lazily."""
        target = self._mounting.target(stored.id)

        def let_go() -> None:
            while self._mounting.mounted(stored.id) is not None:
                unmount(target, lazily=force)
            remove_directory(target)

        try:
            await self._patiently(stored.id, stored.spec, let_go, _PROBE_S, "detach")
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise MicaError(
                    ErrorCode.IN_USE, f"Files are still open on datastore {stored.id}."
                ) from error
            raise from_os_error(error, f"{stored.id} can't be unmounted") from error

    async def present(self, stored: StoredDatastore) -> bool:
        """True while the server answers and the mount is the one that was made."""
        target = self._mounting.target(stored.id)
        if await asyncio.to_thread(self._mounting.mounted, stored.id) is None:
            return False

        def probe() -> None:
            os.statvfs(target)

        try:
            await self._patiently(stored.id, stored.spec, probe, _PROBE_S, "probe")
        except (OSError, HostError):
            return False
        return True

    async def observe(self, stored: StoredDatastore) -> Observation:
        """What was negotiated with the server at the last mount."""
        mounted = await asyncio.to_thread(self._mounting.mounted, stored.id)
        return _NfsObservation(version=spoken_version(mounted) if mounted is not None else None)

    async def _open(
        self, datastore_id: str, nfs: NfsSpec, *, expected: str | None, make: bool
    ) -> Attached:
        target = self._mounting.target(datastore_id)
        source = nfs_source(nfs)
        abandoned = threading.Event()

        def open_it() -> str:
            mounted = self._mounting.mounted(datastore_id)
            if mounted is not None and mounted.source == source:
                try:
                    return open_tree(target, source, expected, make=make)
                except OSError:  # of an earlier life of the server
                    unmount(target, lazily=True)
            elif mounted is not None:
                unmount(target, lazily=True)
            uuid = self._mounting.mount_and_open(
                target,
                lambda: mount_nfs(nfs, target),
                what=source,
                expected=expected,
                make=make,
            )
            if abandoned.is_set():
                unmount(target, lazily=True)
                remove_directory(target)
            return uuid

        try:
            spec = DatastoreSpec(kind=DatastoreKind.NFS, nfs=nfs)
            uuid = await self._patiently(datastore_id, spec, open_it, _MOUNT_S, "mount")
        except HostError as error:
            abandoned.set()
            raise DatastoreMissing(str(error)) from error
        except asyncio.CancelledError:
            abandoned.set()
            raise
        except PermissionError as error:
            raise HostError(
                f"{source} refuses this host: the server must export it to this host's address,"
                " writable, and with root's rights (no_root_squash)."
            ) from error
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT:
                wanted = f"NFS {nfs.version}" if nfs.version else "NFS 3 or 4"
                raise HostError(f"{source}: the server doesn't support {wanted}.") from error
            if error.errno in _NOT_THERE:
                reason = os.strerror(error.errno or 0)
                raise DatastoreMissing(f"{source} can't be used: {reason}.") from error
            raise from_os_error(error, f"{source} can't be mounted") from error
        return Attached(root=target, uuid=uuid, device=source, filesystem="nfs")

    async def _patiently(
        self,
        datastore_id: str,
        spec: DatastoreSpec,
        call: Callable[[], T],
        timeout_s: float,
        purpose: str,
    ) -> T:
        server = _nfs_of(spec).server
        return await self._blocking.run(
            f"{purpose}-{datastore_id}",
            call,
            timeout_s=timeout_s,
            what=f"The NFS server {server}",
        )


def _nfs_of(spec: DatastoreSpec) -> NfsSpec:
    if spec.nfs is None:
        raise MicaError.field("/spec/nfs", "An NFS datastore needs a server and an export.")
    return spec.nfs
