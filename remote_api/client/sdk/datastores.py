"""Disks of the host and datastores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from remote_api.client.sdk.base import CREATE, MERGE_PATCH, Calls
from remote_api.client.sdk.queries import DatastoreListQuery
from remote_api.schema import (
    AddDiskBody,
    DatastoreBody,
    PageOf,
    RenameDatastoreBody,
    ReplaceDiskBody,
    WipeDiskBody,
)
from vmkernel.model import Datastore, DatastoreSpec, Operation

__all__ = ["DatastoreCalls"]


class DatastoreCalls(Calls):
    """Disks of the host and datastores."""

    def wipe_disk(self, disk_id: str) -> Operation:
        """Erase a disk: all data on it is destroyed."""
        body = WipeDiskBody(disk=disk_id, wipe_serial=disk_id)
        return self._operation("POST", "/v1/host/disks/wipe", body=body)

    def datastores(self, **query: Unpack[DatastoreListQuery]) -> Iterator[Datastore]:
        """All datastores."""
        return self._all("/v1/datastores", PageOf[Datastore], query)

    def datastore(self, datastore_id: str) -> Datastore:
        """One datastore."""
        return self.transport.send("GET", f"/v1/datastores/{datastore_id}").read(Datastore)

    def create_datastore(
        self,
        datastore_id: str,
        spec: DatastoreSpec,
        *,
        wipe_serials: tuple[str, ...] = (),
        adopt: bool = False,
        take_over: bool = False,
    ) -> Operation:
        """Create a datastore, or adopt the one that is there; with `adopt`, only the latter.

        With `take_over`, adopt it even if another host is using it.
        """
        return self._operation(
            "PUT",
            f"/v1/datastores/{datastore_id}",
            body=DatastoreBody(
                spec=spec, wipe_serials=wipe_serials, adopt=adopt, take_over=take_over
            ),
            headers=CREATE,
        )

    def delete_datastore(self, datastore_id: str) -> Operation:
        """Remove a datastore from this host; its data is kept."""
        return self._operation("DELETE", f"/v1/datastores/{datastore_id}")

    def set_thresholds(
        self,
        datastore_id: str,
        *,
        warning_percent: int | None = None,
        critical_percent: int | None = None,
    ) -> Datastore:
        """Set the space usage thresholds; None leaves one as it is."""
        wanted = {"warning_percent": warning_percent, "critical_percent": critical_percent}
        spec = {name: value for name, value in wanted.items() if value is not None}
        return self.transport.send(
            "PATCH", f"/v1/datastores/{datastore_id}", body={"spec": spec}, headers=MERGE_PATCH
        ).read(Datastore)

    def rename_datastore(self, datastore_id: str, new_id: str) -> Operation:
        """Rename a datastore on this host."""
        return self._on(datastore_id, "rename", RenameDatastoreBody(id=new_id))

    def mount_datastore(self, datastore_id: str, *, take_over: bool = False) -> Operation:
        """Mount a datastore; with `take_over`, even if another host is using it."""
        path = f"/v1/datastores/{datastore_id}/mount"
        return self._operation("POST", path, take_over=take_over or None)

    def unmount_datastore(self, datastore_id: str) -> Operation:
        """Unmount a datastore; it stays unmounted after a restart."""
        return self._on(datastore_id, "unmount")

    def grow_datastore(self, datastore_id: str) -> Operation:
        """Grow a datastore to the size of its disks."""
        return self._on(datastore_id, "grow")

    def add_datastore_disk(
        self, datastore_id: str, disk_id: str, *, wipe_serials: tuple[str, ...] = ()
    ) -> Operation:
        """Add a disk to a datastore: a spare for `raid`, space for `lvm`."""
        body = AddDiskBody(disk=disk_id, wipe_serials=wipe_serials)
        return self._on(datastore_id, "disks", body)

    def replace_datastore_disk(
        self, datastore_id: str, old: str, new: str, *, wipe_serials: tuple[str, ...] = ()
    ) -> Operation:
        """Put a disk in the place of another; the operation ends when the rebuild has begun."""
        body = ReplaceDiskBody(old=old, new=new, wipe_serials=wipe_serials)
        return self._on(datastore_id, "disks/replace", body)

    def _on(
        self,
        datastore_id: str,
        action: str,
        body: RenameDatastoreBody | AddDiskBody | ReplaceDiskBody | None = None,
    ) -> Operation:
        return self._operation("POST", f"/v1/datastores/{datastore_id}/{action}", body=body)
