"""What storage offers to the VM side, and needs from it: only records and protocols.

offers  Storage        VM folders, volumes and images as paths; news of datastores
needs   VmUsers        who uses a volume, an image or a datastore
        LiveDisks      growing and moving volumes that a VM has open

The methods are called on the event loop. Those that aren't `async` answer from memory and don't
block, so that "check, then change" needs no lock if no `await` is between the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import ImageFormat, VolumeFormat

__all__ = [
    "DiskPast",
    "ImageFile",
    "LiveDisks",
    "Storage",
    "VmUsers",
    "VolumeFile",
    "VolumeLayer",
]


class VolumeLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the backing chain of a linked volume; only read."""

    path: Path
    format: VolumeFormat


class DiskPast(msgspec.Struct, frozen=True, kw_only=True):
    """Where the content is that a VM's snapshot kept of a volume."""

    tag: str | None = None
    """The name of the snapshot inside the volume's qcow2."""
    file: Path | None = None
    """A raw file; with neither, the volume is read-only and unchanged."""


class VolumeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as QEMU opens it."""

    id: str
    datastore: str
    path: Path
    format: VolumeFormat
    size_bytes: int
    backing: tuple[VolumeLayer, ...] = ()
    """Its backing chain, from the top down."""
    children: tuple[str, ...] = ()
    """Its linked clones: while there are any, it is only read."""


class ImageFile(msgspec.Struct, frozen=True, kw_only=True):
    """An image as QEMU reads it; never written."""

    id: str
    datastore: str
    path: Path
    format: ImageFormat
    size_bytes: int
    """Of the file."""


class Storage(Protocol):
    """Paths of volumes and images. Lookups raise MicaError: `not-found` for an id that no datastore
    knows, `unavailable` for a known datastore that is missing now.
    """

    @property
    def qemu_img(self) -> QemuImg:
        """The tool for the files of volumes that no QEMU has open."""
        ...

    def datastores(self) -> tuple[str, ...]:
        """The ids of the available datastores, sorted."""
        ...

    def known_datastores(self) -> tuple[str, ...]:
        """The ids of all datastores that this host is configured with, sorted."""
        ...

    def reserve(self, datastores: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Release the reserved space of full datastores for work that frees space."""
        ...

    def vms_folder(self, datastore: str) -> Path:
        """The folder of an available datastore with one folder per VM; it exists."""
        ...

    def volume(self, volume: str, *, while_busy: bool = False) -> VolumeFile:
        """A volume that can be opened; `conflict` if other work locks it, unless `while_busy`."""
        ...

    def image(self, image: str) -> ImageFile:
        """An image that can be read."""
        ...

    def datastore_of_volume(self, volume: str) -> str | None:
        """The available datastore that a volume is on, whatever its state; None if none has it."""
        ...

    def datastore_of_image(self, image: str) -> str | None:
        """The same for an image."""
        ...

    async def copy_volume(
        self,
        source: str,
        new: str,
        *,
        datastore: str | None,
        on_progress: Callable[[int, int], None],
        clone: str,
        past: DiskPast | None = None,
    ) -> bool:
        """Make a volume `new` with the present content of another, or that of a snapshot, without
        its snapshots; durable on return, nothing is left if it fails or is cancelled. True if the
        two share their blocks. The volume carries the token `clone`.
        """
        ...

    async def link_volume(self, source: str, new: str, *, clone: str) -> None:
        """Make an empty volume `new` linked to another, which must not change from now on; durable
        on return, nothing is left if it fails or is cancelled.
        """
        ...

    async def keep_volumes(self, volumes: Iterable[str]) -> None:
        """Keep volumes that were to be deleted unless a VM names them: a stored spec names them
        now. Durable on return.
        """
        ...

    def children(self, volume: str) -> tuple[str, ...]:
        """The linked clones of a volume, sorted; empty for an unknown id."""
        ...

    def clone_of(self, volume: str) -> str | None:
        """The token of the clone that a volume was made for; None if it has none,
        or can't be read.
        """
        ...

    def refuse_children(self, volume: str) -> None:
        """Raise `in-use` if linked clones need a volume's data unchanged."""
        ...

    def fault(self, volume: str) -> str | None:
        """Why a volume can't be used, as of its last check; None if it can."""
        ...

    async def refresh(self, volumes: Sequence[str]) -> None:
        """Read the files of volumes and of their backing chains again before they are opened."""
        ...

    async def delete_volume(self, volume: str, *, actor: str) -> None:
        """Delete a volume that no VM names any more (`vm.delete` with `with_volumes`)."""
        ...

    def on_datastore_change(self, callback: Callable[[str, bool], None]) -> None:
        """Call `callback(datastore, available)` whenever a datastore becomes available or is about
        to be detached.

        It is called on the event loop, after the datastore's volumes and images are known, and
        before they are forgotten.
        """
        ...


class VmUsers(Protocol):
    """Who uses what; storage checks it before it deletes, resizes or unmounts."""

    def vm_of_volume(self, volume: str) -> str | None:
        """The id of the VM whose spec names the volume."""
        ...

    def names_volume(self, volume: str) -> bool | None:
        """True if the stored spec of a VM names the volume; None if one of them may, or is about
        to.
        """
        ...

    def volume_is_open(self, volume: str) -> bool:
        """True if a VM with the volume is not certainly off, or is suspended: its memory image
        depends on the volume's content.
        """
        ...

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        """The snapshots that include the volume, each as `vm/snapshot`."""
        ...

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        """The names that snapshots of VMs have inside a volume's file; None while some VMs or
        snapshots are unknown.
        """
        ...

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        """The ids of the VMs whose specs name the image, sorted."""
        ...

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        """The VMs with their folder, a volume or an image there; only those not certainly off
        where `active`. One with a volume that no present datastore has counts for each that is
        away."""
        ...


class LiveDisks(Protocol):
    """Changes of volumes that a QEMU has open."""

    async def resize(self, volume: str, size_bytes: int) -> None:
        """Grow a disk; the guest is notified."""
        ...

    async def mirror(
        self,
        volume: str,
        target: Path,
        target_format: VolumeFormat,
        *,
        on_progress: Callable[[int, int], None],
        commit: Callable[[], Awaitable[None]],
        revert: Callable[[], Awaitable[None]],
    ) -> None:
        """Copy a disk to `target`, an empty volume of its size, while the guest writes, and switch
        to it.

        `commit` is awaited at an instant when both files are equal, flushed, and neither is
        written; QEMU switches when it has returned, and stays with the old file if it raises. If
        QEMU refuses after that, `revert` is awaited. Cancelling changes nothing.
        """
        ...
