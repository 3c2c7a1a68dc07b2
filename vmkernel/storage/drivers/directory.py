"""A datastore in a directory of the machine that hosted mode runs on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.errors import HostError, from_os_error
from vmkernel.host.files import make_directory
from vmkernel.model import DatastoreKind, DatastoreSpec, ErrorCode, MicaError
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers.base import Attached, CreateOptions, DatastoreDriver, Report
from vmkernel.storage.errors import DatastoreMissing, StorageError
from vmkernel.storage.layout import Layout
from vmkernel.storage.records import RecordError

__all__ = ["DirectoryDriver"]

_PATIENCE_S = 20.0
"""The directory may be on a network file system."""


class DirectoryDriver(DatastoreDriver):
    """Takes an empty directory, or one that is already a datastore."""

    kind = DatastoreKind.DIRECTORY
    shared = True

    def __init__(self) -> None:
        self._blocking = BlockingCalls()

    async def check(self, spec: DatastoreSpec, options: CreateOptions) -> None:
        """Refuse at once what `create` would refuse."""
        if options.wipe_serials:
            raise MicaError.field("/wipe_serials/0", "A directory is never wiped.")
        if spec.path is None:
            raise MicaError.field("/spec/path", "A directory datastore needs a path.")
        if "\0" in spec.path or not spec.path.startswith("/"):
            raise MicaError.field("/spec/path", "The path must be absolute.")
        if "," in spec.path:
            # swtpm's options have no way to name such a file.
            raise MicaError.field("/spec/path", "The path must not contain a comma.")
        await asyncio.to_thread(_probe, Path(spec.path), options.adopt)

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, report: Report
    ) -> Attached:
        """Make the tree in the directory, or adopt an existing one."""
        del datastore_id
        await self.check(spec, options)
        assert spec.path is not None
        report("directory")
        return await asyncio.to_thread(_create, Path(spec.path))

    async def attach(self, stored: StoredDatastore) -> Attached:
        assert stored.spec.path is not None
        return await asyncio.to_thread(_attach, Path(stored.spec.path), stored.uuid)

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None: ...

    async def present(self, stored: StoredDatastore) -> bool:
        """True while the directory is there."""
        path = stored.spec.path
        if path is None:
            return False
        try:
            return await self._blocking.run(
                stored.id, Path(path).is_dir, timeout_s=_PATIENCE_S, what=f"The directory {path}"
            )
        except HostError:
            return False


def _probe(path: Path, adopt: bool) -> None:
    try:
        path = path.resolve()  # an administrator's links count; those inside never do
        if adopt and Layout(path).read_marker() is None:
            raise MicaError.field("/adopt", f"{path} holds no datastore.", ErrorCode.CONFLICT)
        if not path.exists():
            if not path.parent.is_dir():
                raise MicaError.field("/spec/path", f"There is no directory {path.parent}.")
            return
        if not path.is_dir():
            raise MicaError.field("/spec/path", f"{path} is not a directory.")
        layout = Layout(path)
        if layout.read_marker() is None and not layout.empty():
            raise MicaError.field(
                "/spec/path",
                f"{path} holds other files; give an empty directory or a datastore.",
                ErrorCode.CONFLICT,
            )
    except RecordError as error:
        raise MicaError.field(
            "/spec/path", f"{path} can't be adopted: {error}.", ErrorCode.CONFLICT
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MicaError.field("/spec/path", f"{path} can't be used ({reason}).") from error


def _create(path: Path) -> Attached:
    try:
        path = path.resolve()
        make_directory(path)
        layout = Layout(path)
        marker = layout.read_marker() or layout.initialise()
    except RecordError as error:
        raise StorageError(ErrorCode.CONFLICT, f"The datastore in {path}: {error}.") from error
    except OSError as error:
        raise from_os_error(error, f"The datastore in {path} can't be made") from error
    return Attached(root=path, uuid=marker.uuid)


def _attach(path: Path, uuid: str) -> Attached:
    try:
        path = path.resolve()
        layout = Layout(path)
        marker = layout.read_marker()
        if marker is None:
            raise DatastoreMissing(f"There is no datastore in {path} now.")
        if marker.uuid != uuid:
            raise DatastoreMissing(f"{path} holds another datastore ({marker.uuid}) now.")
    except RecordError as error:
        raise StorageError(ErrorCode.UNAVAILABLE, f"The datastore in {path}: {error}.") from error
    except OSError as error:
        raise DatastoreMissing(f"{path} can't be used ({error.strerror}).") from error
    return Attached(root=path, uuid=uuid)
