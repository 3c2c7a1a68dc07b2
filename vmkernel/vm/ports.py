"""What the VM side needs from the rest of the vmkernel, and what it offers: only protocols.

needs   Operations     runs and records work that outlasts its request
        Events publishes events
        (and `Storage`, see vmkernel/storage/ports.py)
offers  VmDirectory    the VMs, as the control server and the host's power control use them
        (and `VmUsers` and `LiveDisks`, see the same)

All methods are called on the event loop. Those that aren't `async` answer from memory and don't
block, so that "check, then change" needs no lock if no `await` is between the two.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Protocol

from vmkernel.model import (
    ConsoleKind,
    MachineState,
    Operation,
    Progress,
    Record,
    Subject,
    Vm,
    VmAction,
    VmSpec,
    VmState,
)
from vmkernel.storage.ports import VmUsers

__all__ = [
    "EventData",
    "Events",
    "OperationHandle",
    "Operations",
    "VmDirectory",
    "Work",
]

EventData = Mapping[str, str | int | float | bool | None]


class OperationHandle(Protocol):
    """What work under way may do with its own operation."""

    def progress(self, progress: Progress) -> None:
        """Report the progress of the work."""
        ...

    def nothing_to_do(self) -> None:
        """Say that all is as the work would make it."""
        ...


Work = Callable[[OperationHandle], Awaitable[None]]
"""The body of an operation: returning is success, MicaError is the failure that is recorded."""


class Operations(Protocol):
    """Runs work in tasks that it owns."""

    def running(self, subject: Subject) -> list[Operation]:
        """The unfinished operations about one object."""
        ...

    async def wait(self, operation_id: str, wait_s: float) -> Operation:
        """The operation once it has finished, or as it is when the time is over."""
        ...

    def begin(
        self,
        kind: str,
        subject: Subject,
        work: Work,
        *,
        actor: str,
        cancellable: bool = False,
        held: ExitStack | None = None,
    ) -> Operation:
        """Start `work` and answer with the running operation.

        Cancelling raises CancelledError inside `work`. What `held` holds is released when the work
        has ended, or at once if the operation is refused.
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
        before: Record | None = None,
    ) -> None:
        """Publish an event; never blocks. `before` is the object as it was, if it is gone now or
        may have had other labels."""
        ...


class VmDirectory(VmUsers, Protocol):
    """The virtual machines of this host. `VmService` implements it."""

    async def start(self) -> None:
        """Load the VMs of all datastores and find again those that run."""
        ...

    async def stop(self) -> None:
        """Stop; running VMs keep running."""
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
        """The process id of a VM's QEMU; None if it has none."""
        ...

    def promised_bytes(self) -> int:
        """The memory that was promised to VMs that run."""
        ...

    def get(self, vm_id: str) -> Vm:
        """One VM; `not-found` if there is none."""
        ...

    async def create(
        self, vm_id: str, spec: VmSpec, *, actor: str, machine: MachineState | None = None
    ) -> Vm:
        """Make a VM, or a saved one again; durable on return."""
        ...

    async def update(self, vm_id: str, spec: VmSpec, revision: int, *, actor: str) -> Vm:
        """Replace the spec if `revision` is still the current one; durable on return."""
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
        """Begin an action; refused at once if it isn't legal now."""
        ...

    async def open_console(
        self, vm_id: str, kind: ConsoleKind, *, actor: str = "somebody", origin: str = ""
    ) -> socket.socket:
        """A connected socket for the peer of the request; the caller closes it after passing it on.
        The other clients of a serial line see its name; messages are those of
        vmkernel/model/console.py.
        """
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
        those that keep running, are returned. From then on no VM is started automatically.
        """
        ...

    def end_called_off(self) -> None:
        """The shutdown was cancelled: restart policies apply again."""
        ...
