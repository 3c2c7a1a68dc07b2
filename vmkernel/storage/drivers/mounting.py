"""Mounting a datastore's file system below one folder, and opening the tree in it.

Nothing stays mounted that is not the datastore that was expected: if the marker is missing,
unreadable or of another datastore, it is unmounted.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from vmkernel.host.blkid import probe
from vmkernel.host.errors import from_os_error
from vmkernel.host.files import make_directory
from vmkernel.host.mounts import Mount, mount, mounts, unmount
from vmkernel.host.runner import Runner
from vmkernel.model import ErrorCode, Filesystem, MicaError
from vmkernel.storage.drivers.disk_selection import describe
from vmkernel.storage.errors import DatastoreMissing, StorageError
from vmkernel.storage.layout import Layout
from vmkernel.storage.records import RecordError

__all__ = ["MOUNTABLE", "Mounting", "open_tree", "remove_directory"]

MOUNTABLE = frozenset(item.value for item in Filesystem)


class Mounting:
    """Mounts below `root`, one folder for each datastore."""

    def __init__(self, runner: Runner, root: Path) -> None:
        self._runner = runner
        self._root = root

    def target(self, datastore_id: str) -> Path:
        return self._root / datastore_id

    def mounted(self, datastore_id: str) -> Mount | None:
        """What is mounted there now."""
        target = self.target(datastore_id)
        found = [entry for entry in mounts() if entry.target == target]
        return found[-1] if found else None

    async def open_device(
        self, datastore_id: str, device: Path, *, expected: str | None
    ) -> tuple[Path, str, str]:
        """Mount a device and open its tree; returns the place, the UUID and the file system."""
        signature = await probe(self._runner, device)
        filesystem = signature.filesystem
        if filesystem not in MOUNTABLE:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"The datastore on {device} holds {describe(signature)}, not XFS or ext4.",
            )
        target = self.target(datastore_id)
        try:
            uuid = await asyncio.to_thread(self._open_device, device, target, filesystem, expected)
        except OSError as error:
            raise from_os_error(error, f"Datastore {datastore_id} can't be mounted") from error
        return target, uuid, filesystem

    async def close(self, datastore_id: str, *, force: bool = False) -> None:
        """Unmount; `in-use` if something is open there, unless `force`."""
        target = self.target(datastore_id)
        try:
            while await asyncio.to_thread(self.mounted, datastore_id) is not None:
                await asyncio.to_thread(unmount, target, lazily=force)
            await asyncio.to_thread(remove_directory, target)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise StorageError(
                    ErrorCode.IN_USE, f"Files are still open on datastore {datastore_id}."
                ) from error
            raise from_os_error(error, f"{datastore_id} can't be unmounted") from error

    def _open_device(
        self, device: Path, target: Path, filesystem: str, expected: str | None
    ) -> str:
        number = device.stat().st_rdev
        name = f"{os.major(number)}:{os.minor(number)}"
        mounted = [entry for entry in mounts() if entry.target == target]
        ours = bool(mounted) and mounted[-1].device_number == name
        if mounted and not ours:
            unmount(target, lazily=True)
        return self.mount_and_open(
            target,
            lambda: mount(device, target, filesystem),
            what=str(device),
            expected=expected,
            mounted=ours,
        )

    def mount_and_open(
        self,
        target: Path,
        do_mount: Callable[[], None],
        *,
        what: str,
        expected: str | None,
        mounted: bool = False,
        make: bool = True,
    ) -> str:
        """Mount (unless an earlier vmkernel did) and open the tree; unmounted again on failure.

        Blocks. OSError, StorageError, DatastoreMissing.
        """
        for folder in (target.parent, target):
            make_directory(folder)
        if not mounted:
            try:
                do_mount()
            except OSError:
                remove_directory(target)
                raise
        try:
            return open_tree(target, what, expected, make=make)
        except BaseException:
            if not mounted:
                unmount(target, lazily=True)
                remove_directory(target)
            raise


def open_tree(root: Path, what: str, expected: str | None, *, make: bool = True) -> str:
    """Read the marker, or `make` one in an empty root (blocking); its UUID. Nothing else is
    changed: the datastore may be in use by another host.
    """
    layout = Layout(root)
    try:
        marker = layout.read_marker()
        if marker is None:
            if not make and expected is None:
                raise MicaError.field("/adopt", f"{what} holds no datastore.", ErrorCode.CONFLICT)
            if expected is not None or not layout.empty():
                raise StorageError(
                    ErrorCode.CONFLICT, f"{what} holds files, but no datastore marker."
                )
            marker = layout.initialise()
        if expected is not None and marker.uuid != expected:
            raise DatastoreMissing(f"{what} holds another datastore ({marker.uuid}).")
    except RecordError as error:
        raise StorageError(ErrorCode.CONFLICT, f"The datastore on {what}: {error}.") from error
    return marker.uuid


def remove_directory(target: Path) -> None:
    """Remove an empty folder, if it exists."""
    if target.is_dir():
        target.rmdir()
