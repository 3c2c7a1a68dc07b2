"""What the VM side needs of the rest of the vmkernel, and what it offers: protocols only.

needs   Storage        VM folders, volumes and images as paths; news of datastores
        Operations     runs and records work that outlasts its request
        Events         tells the world
offers  VmUsers        who uses a volume, an image or a datastore (storage asks this)
        LiveDisks      growing and moving volumes that a VM has open
        VmDirectory    the VMs, as the control server and the host's power control use them

All methods are called on the event loop. Those that aren't `async` answer from memory and don't
block, so that "check, then change" needs no lock where no `await` lies between the two.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import (
    ConsoleKind,
    ImageFormat,
    MachineState,
    Operation,
    Progress,
    Subject,
    Vm,
    VmAction,
    VmSpec,
    VmState,
    VolumeFormat,
)

__all__ = [
    "DiskPast",
    "EventData",
    "Events",
    "ImageFile",
    "LiveDisks",
    "OperationHandle",
    "Operations",
    "Storage",
    "VmDirectory",
    "VmUsers",
    "VolumeFile",
    "VolumeLayer",
    "Work",
]

EventData = Mapping[str, str | int | float | bool | None]


class LiveDisks(Protocol):
    """Changes of volumes that a QEMU has open."""

    async def resize(self, volume: str, size_bytes: int) -> None:
        """Let a disk grow; the guest is told."""
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
        """Copy a disk to `target`, an empty volume of its size, while the guest writes, and go
        over to it.

        `commit` is awaited at an instant when both files are equal, flushed, and neither is
        written; QEMU goes over once it has returned, and stays where it raises. Should QEMU
        refuse after that, `revert` is awaited. Cancelling leaves all as it was.
        """
        ...


class VolumeLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a linked volume's own file stands on; only read."""

    path: Path
    format: VolumeFormat


class DiskPast(msgspec.Struct, frozen=True, kw_only=True):
    """Where the content is that a snapshot of a VM kept of a volume."""

    tag: str | None = None
    """The name of the snapshot inside the volume's qcow2."""
    file: Path | None = None
    """A raw file; with neither, the volume is read-only and is as it was."""


class VolumeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as QEMU opens it."""

    id: str
    datastore: str
    path: Path
    format: VolumeFormat
    size_bytes: int
    backing: tuple[VolumeLayer, ...] = ()
    """What the file stands on, from the upper to the lowest."""
    children: tuple[str, ...] = ()
    """The volumes that are linked to it: while there are any, it is only read."""


class ImageFile(msgspec.Struct, frozen=True, kw_only=True):
    """An image as QEMU reads it; never written."""

    id: str
    datastore: str
    path: Path
    format: ImageFormat
    size_bytes: int
    """Of the file."""


class Storage(Protocol):
    """Where things lie. Lookups raise MicaError: `not-found` for an id that no datastore knows,
    `unavailable` for a datastore that is known but not there now."""

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
        """Let what frees room on full datastores have the room that is set aside there."""
        ...

    def vms_folder(self, datastore: str) -> Path:
        """The folder of an available datastore that holds one folder a VM; it exists."""
        ...

    def volume(self, volume: str, *, while_busy: bool = False) -> VolumeFile:
        """A volume that can be opened; `conflict` where somebody is at it, unless `while_busy`."""
        ...

    def image(self, image: str) -> ImageFile:
        """An image that can be read."""
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
        """Make a volume `new` of what another holds now, or held when a snapshot was taken,
        without its snapshots; durable on return, nothing left where it fails or is cancelled.
        True where the two share their blocks. The volume carries the token `clone`."""
        ...

    async def link_volume(self, source: str, new: str, *, clone: str) -> None:
        """Make an empty volume `new` that is the difference to another, which from now on must
        stay as it is; durable on return, nothing left where it fails or is cancelled."""
        ...

    def children(self, volume: str) -> tuple[str, ...]:
        """The volumes that are linked to one, sorted; none for an id that nothing has."""
        ...

    def clone_of(self, volume: str) -> str | None:
        """The token of the clone that a volume was made for; None where it has none, or can't be
        asked."""
        ...

    def refuse_children(self, volume: str) -> None:
        """Raise `in-use` where linked volumes need a volume's data as they are."""
        ...

    def fault(self, volume: str) -> str | None:
        """Why a volume can't be used, as far as it was looked at; `None` where it can."""
        ...

    async def look_again(self, volumes: Sequence[str]) -> None:
        """Look at the files of volumes, and of what they stand on, before they are opened."""
        ...

    async def delete_volume(self, volume: str, *, actor: str) -> None:
        """Delete a volume that no VM names any more (`vm.delete` with `with_volumes`)."""
        ...

    def on_datastore_change(self, callback: Callable[[str, bool], None]) -> None:
        """Call `callback(datastore, available)` whenever a datastore comes or is about to go.

        It is called on the event loop, after the datastore's volumes and images are known, and
        before they are forgotten.
        """
        ...


class OperationHandle(Protocol):
    """What work under way may do with its own operation."""

    def progress(self, progress: Progress) -> None:
        """Tell how far the work is."""
        ...


Work = Callable[[OperationHandle], Awaitable[None]]
"""The body of an operation: returning is success, MicaError is the failure that is recorded."""


class Operations(Protocol):
    """Runs work in a task of its own that it owns."""

    def begin(
        self,
        kind: str,
        subject: Subject,
        work: Work,
        *,
        actor: str,
        cancellable: bool = False,
    ) -> Operation:
        """Start `work` and answer with the running operation.

        Cancelling raises CancelledError inside `work`.
        """
        ...


class Events(Protocol):
    """The event bus, from the publishing side."""

    def publish(
        self,
        event_type: str,
        subject: Subject,
        *,
        message: str = "",
        data: EventData | None = None,
        actor: str | None = None,
    ) -> None:
        """Publish an event; never blocks."""
        ...


class VmUsers(Protocol):
    """Who uses what; storage asks before it deletes, resizes or unmounts."""

    def vm_of_volume(self, volume: str) -> str | None:
        """The id of the VM whose spec names the volume."""
        ...

    def volume_is_open(self, volume: str) -> bool:
        """True where a VM that has the volume is not certainly off, or suspended: its memory on
        disk knows what is on the volume."""
        ...

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        """The snapshots that hold the volume, each as `vm/snapshot`."""
        ...

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        """The names that snapshots of VMs have inside a volume's file; None while not all VMs and
        their snapshots can be known."""
        ...

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        """The ids of the VMs whose specs name the image, sorted."""
        ...

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        """The VMs with their folder, a volume or an image there; only those not certainly off
        where `active`."""
        ...


class VmDirectory(VmUsers, Protocol):
    """The virtual machines of this host. `VmService` implements it."""

    async def start(self) -> None:
        """Load the VMs of all datastores and find again those that run."""
        ...

    async def stop(self) -> None:
        """Let go of everything; VMs that run, run on."""
        ...

    def list_vms(self) -> tuple[Vm, ...]:
        """All VMs, ordered by id."""
        ...

    def page(self, after: str | None, limit: int) -> tuple[tuple[Vm, ...], bool]:
        """At most `limit` VMs ordered by id, from the first after the id `after`, and whether
        others follow."""
        ...

    def states(self) -> Mapping[str, VmState]:
        """Every VM's state by its id."""
        ...

    def process_of(self, vm_id: str) -> int | None:
        """The process id of a VM's QEMU; None where it has none."""
        ...

    def promised_bytes(self) -> int:
        """The memory that was promised to VMs that run."""
        ...

    def get(self, vm_id: str) -> Vm:
        """One VM; `not-found` otherwise."""
        ...

    async def create(
        self, vm_id: str, spec: VmSpec, *, actor: str, machine: MachineState | None = None
    ) -> Vm:
        """Make a VM, or a saved one again; durable on return."""
        ...

    async def update(self, vm_id: str, spec: VmSpec, revision: int, *, actor: str) -> Vm:
        """Replace the spec where `revision` is still the present one; durable on return."""
        ...

    async def delete(
        self,
        vm_id: str,
        *,
        revision: int | None = None,
        with_volumes: bool = False,
        actor: str,
    ) -> None:
        """Delete a VM that is off."""
        ...

    async def act(self, vm_id: str, action: VmAction, *, timeout_s: float, actor: str) -> Operation:
        """Begin an action; refused at once where it isn't legal now."""
        ...

    async def open_console(
        self, vm_id: str, kind: ConsoleKind, *, who: str = "somebody"
    ) -> socket.socket:
        """A connected socket for the peer of the request; the caller closes it after handing it
        on. `who` is named to the others at a serial line, whose messages are those of
        vmkernel/model/console.py."""
        ...

    async def shutdown_all(
        self,
        *,
        timeout_s: float,
        force: bool,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]:
        """End all guests as their specs say, at most `timeout_s` for all together.

        With `force`, those that don't end in their time are powered off; the ids of these, or of
        the ones that go on running, are returned. From then on no VM is started of itself.
        """
        ...

    def end_called_off(self) -> None:
        """The host goes on after all: restart policies count again."""
        ...
