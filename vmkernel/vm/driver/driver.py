"""The one task that owns a VM: other tasks queue requests, QEMU queues its events.

Nothing outside this task changes a VM's state. A message is handled completely before the next one
is read; anything long that must not block the queue (a guest that is shutting down) is a state with
waiters and deadlines, not a wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vmkernel.errors import to_problem
from vmkernel.host import from_os_error, naming_datastore
from vmkernel.model import ErrorCode, MicaError, Progress, SecureBootStatus, Vm, VmState
from vmkernel.qemu import QemuError, QmpLostError
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.actions import WAITS, carry_out
from vmkernel.vm.driver.firmware_keys import keys_unseen, refresh_keys
from vmkernel.vm.driver.qemu_events import come_due, datastore_changed, note
from vmkernel.vm.driver.reconnect import on_link_lost, reconnect
from vmkernel.vm.driver.recovery import keep_alive, recover
from vmkernel.vm.driver.removals import settle
from vmkernel.vm.guest.agent import GuestAgent
from vmkernel.vm.guest.serial_console import SerialConsole
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.messages import (
    Change,
    DatastoreChanged,
    Message,
    PendingRequest,
    QemuEventMessage,
    Reconnect,
    TimerFired,
    WaiterGone,
    fail,
)
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.states import ACTIVE, AT_REST, OFF, VmRequest, check_legal
from vmkernel.vm.store.definition import VmDefinition

if TYPE_CHECKING:
    from vmkernel.vm.store.snapshot_records import SnapshotRecord

__all__ = ["VmDriver"]

_IN_HAND = frozenset({VmRequest.START, VmRequest.POWER_OFF, VmRequest.DELETE})
"""Requests after which the restart policy counts from zero."""

_log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


class VmDriver:
    """One VM. `run` is its task; the other methods may be called by anyone on the event loop."""

    def __init__(
        self,
        host: VmContext,
        definition: VmDefinition,
        folder: Path,
        renewed: Callable[[VmDefinition], None],
    ) -> None:
        """`renewed` is called with each new definition."""
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._machine = Machine(host, definition, folder, self._queue.put_nowait, renewed)
        self._ready = asyncio.Event()
        self._deleted = False

    # --- what anyone may ask ------------------------------------------------------------------

    @property
    def vm_id(self) -> str:
        return self._machine.vm_id

    @property
    def definition(self) -> VmDefinition:
        return self._machine.definition

    @property
    def folder(self) -> Path:
        """Its folder on the datastore."""
        return self._machine.folder

    @property
    def console(self) -> SerialConsole:
        return self._machine.console

    @property
    def agent(self) -> GuestAgent:
        """The agent in its guest."""
        return self._machine.agent

    @property
    def state(self) -> VmState:
        return self._machine.state

    @property
    def run_id(self) -> str | None:
        """What tells this run of its QEMU from all others; None while there is none, and for one
        whose record is lost."""
        record = self._machine.record
        return record.run if record is not None and self.state in ACTIVE else None

    @property
    def active(self) -> bool:
        """True if it isn't certainly off."""
        return self._machine.state in ACTIVE or not self._ready.is_set()

    @property
    def holds_files(self) -> bool:
        """True if a QEMU, or a tool, has files of its datastores open, or may have."""
        return self.active or self._machine.at_disks

    @property
    def needs_disks_as_they_are(self) -> bool:
        """True if QEMU has its disks open, its saved memory depends on their content, or work on
        them is in progress.
        """
        return self.holds_files or self.state is VmState.SUSPENDED

    @property
    def unseen_keys(self) -> bool:
        """True if it is off or suspended and its firmware variables have not been read since."""
        return self._ready.is_set() and keys_unseen(self._machine)

    @property
    def secure_boot(self) -> SecureBootStatus | None:
        """The last known state of its Secure Boot keys."""
        return self._machine.keys.status

    async def refresh_keys(self) -> None:
        """Look at them, while nothing is done to the VM."""
        await refresh_keys(self._machine)

    def view(self) -> Vm:
        return self._machine.view()

    async def ready(self) -> None:
        """Wait until it is known whether the VM runs."""
        await self._ready.wait()

    def check(self, request: VmRequest) -> None:
        """Raise `conflict` if the request isn't legal now, or blocked by long work."""
        if request is VmRequest.POWER_OFF and self._machine.restarts.pending:
            return  # it ends the waiting for the next start
        check_legal(self.vm_id, request, self._machine.state)
        self._machine.locks.check(request)

    async def ask(
        self,
        request: VmRequest,
        *,
        timeout_s: float = 0.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Queue a request and wait for its end; cancelling gives up waiting for a shutdown, and
        the writing of memory to disk. A power-off waits for no memory either."""
        await self._put(request, timeout_s=timeout_s, on_progress=on_progress)

    def datastore_changed(self, datastore: str, available: bool) -> None:
        """A datastore that the VM needs went away, or is there again."""
        self._queue.put_nowait(DatastoreChanged(datastore, available))

    async def change(self, request: VmRequest, change: Change) -> VmDefinition:
        """Queue a change of the definition; durable on return."""
        await self._put(request, change=change)
        return self.definition

    async def use(
        self, request: VmRequest, work: Callable[[RunningVm], Awaitable[Outcome]]
    ) -> Outcome:
        """Queue short work with QEMU: it runs inside the owner task, so that nothing else changes
        the VM meanwhile. Raises `conflict` if the request isn't legal, `unavailable` if QEMU
        doesn't answer, and the work's own errors.
        """

        async def inside() -> Outcome:
            return await work(self._machine.running())

        outcome: Outcome = await self._put(request, work=inside)
        return outcome

    async def inside(
        self, request: VmRequest, work: Callable[[Machine], Awaitable[Outcome]]
    ) -> Outcome:
        """Queue work of a part of the VM side that changes the machine itself."""
        outcome: Outcome = await self._put(request, work=lambda: work(self._machine))
        return outcome

    def interrupt(self) -> None:
        """End the long part of such work early, if it is in it."""
        self._machine.interrupt()

    @property
    def snapshots(self) -> Mapping[str, SnapshotRecord]:
        return self._machine.snapshots

    @property
    def broken_snapshots(self) -> Mapping[str, str]:
        """Why snapshots in its folder can't be used, by id."""
        return self._machine.snapshots.broken

    async def apart(self, request: VmRequest, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Queue work on a VM that needs no QEMU, such as on the files of a VM that is off."""
        outcome: Outcome = await self._put(request, work=work)
        return outcome

    def hold(self, reason: str, blocks: frozenset[VmRequest]) -> AbstractContextManager[None]:
        """Block requests during long work; see OperationLocks.hold. `conflict` also if the VM's
        memory is saved on disk, or is being saved."""
        check_legal(self.vm_id, VmRequest.HOLD, self._machine.state)
        return self._machine.locks.hold(reason, blocks)

    async def add_vnc_client(self, fd: int) -> None:
        """Hand a connected socket to the VNC server."""
        if not self._machine.connected:
            raise MicaError(ErrorCode.CONFLICT, f"VM {self.vm_id} has no screen now.")
        try:
            await self._machine.qmp().add_vnc_client(fd)
        except QemuError as error:
            raise MicaError(ErrorCode.UNAVAILABLE, f"{error}") from error

    async def _put(
        self,
        request: VmRequest,
        *,
        timeout_s: float = 0.0,
        change: Change | None = None,
        work: Callable[[], Awaitable[Any]] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Any:
        if self._deleted:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no VM {self.vm_id}.")
        loop = asyncio.get_running_loop()
        ask = PendingRequest(
            request,
            loop.create_future(),
            loop.time() + timeout_s,
            change,
            work,
            on_progress,
            interrupts=request is VmRequest.POWER_OFF and self._machine.interrupt(),
        )
        self._queue.put_nowait(ask)
        return await ask.done

    # --- the owner task -----------------------------------------------------------------------

    async def run(self) -> None:
        """Own the VM until cancelled or deleted."""
        machine = self._machine
        try:
            try:
                await recover(machine)
            except Exception as error:
                detail = to_problem(error, f"VM {self.vm_id}").detail
                if _lives(machine):
                    keep_alive(machine, detail)
                else:
                    machine.set_state(VmState.UNUSABLE, detail)
            if machine.record is not None:
                await machine.host.network.adopt_ports(self.vm_id, machine.record.nics)
            await self._guarded(settle(machine))
            self._ready.set()
            me = asyncio.current_task()
            assert me is not None
            # What had to be brought to its end may have been cancelled in vain.
            while not self._deleted and not me.cancelling():
                message = await self._next()
                if message is not None:
                    await self._handle(message)
        finally:
            await self._let_go()

    async def _next(self) -> Message | None:
        """The next message; None if a waiter's time is over."""
        self._machine.drop_waiters()
        deadline = min((ask.deadline for ask in self._machine.waiting), default=None)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._queue.get()
        except TimeoutError:
            self._machine.drop_waiters()
            return None

    async def _handle(self, message: Message) -> None:
        machine = self._machine
        if isinstance(message, QemuEventMessage):
            message.taken()
        if isinstance(message, PendingRequest):
            await self._answer(message)
        elif isinstance(message, WaiterGone):
            machine.drop_waiters()
        elif isinstance(message, TimerFired):
            await self._guarded(come_due(machine, message))
        elif isinstance(message, DatastoreChanged):
            datastore_changed(machine, message.datastore, available=message.available)
        elif message.session != machine.session:
            return
        elif isinstance(message, Reconnect):
            await self._guarded(reconnect(machine))
            await self._guarded(settle(machine))
        elif message.event is None:
            await self._guarded(on_link_lost(machine))
            if machine.state in AT_REST and machine.definition.spec.tpm:
                await self._guarded(asyncio.to_thread(tpm_state.make_durable, machine.folder))
            await self._guarded(settle(machine))
        else:
            await self._guarded(note(machine, message.event))

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Work without a requester, whose failure is only logged; the owner task continues."""
        try:
            await work
        except (MicaError, QemuError, OSError) as error:
            _log.warning("VM %s: %s", self.vm_id, error)
        except Exception as error:
            to_problem(error, f"VM {self.vm_id}")

    async def _answer(self, ask: PendingRequest) -> None:
        if ask.done.cancelled():
            return
        try:
            if ask.interrupts and self._machine.state in OFF:
                ask.done.set_result(None)
                return
            self.check(ask.request)
            if ask.request in _IN_HAND:
                self._machine.restarts.forget()
            with naming_datastore(self.definition.spec.datastore):
                outcome = await carry_out(self._machine, ask)
        except asyncio.CancelledError:
            ask.done.cancel()
            raise
        except QmpLostError as error:
            failure = MicaError(
                ErrorCode.UNAVAILABLE,
                f"{error} The outcome of the request is unknown: check the VM.",
            )
            failure.__cause__ = error
            fail(ask.done, failure)
        except QemuError as error:
            fail(ask.done, MicaError(ErrorCode.UNAVAILABLE, str(error)))
        except OSError as error:
            fail(ask.done, from_os_error(error, f"VM {self.vm_id}"))
        except Exception as error:
            if not isinstance(error, MicaError):
                _log.exception("VM %s: %s failed", self.vm_id, ask.request)
            fail(ask.done, error)
        else:
            if outcome is WAITS:
                ask.done.add_done_callback(lambda _: self._queue.put_nowait(WaiterGone()))
                return
            if ask.request is VmRequest.DELETE:
                self._deleted = True
            if not ask.done.done():
                ask.done.set_result(outcome)

    async def _let_go(self) -> None:
        """The task ends: a running VM keeps running."""
        machine = self._machine
        await machine.drop_link()
        machine.console.close()
        failure = MicaError(
            ErrorCode.NOT_FOUND if self._deleted else ErrorCode.UNAVAILABLE,
            f"VM {self.vm_id} no longer exists."
            if self._deleted
            else "The vmkernel is shutting down; retry in a moment.",
        )
        asks = list(machine.waiting)
        while not self._queue.empty():
            message = self._queue.get_nowait()
            if isinstance(message, PendingRequest):
                asks.append(message)
        for ask in asks:
            fail(ask.done, failure)


def _lives(machine: Machine) -> bool:
    """True if its QEMU exists, or that can't be found out."""
    try:
        return machine.host.launcher.is_active(machine.vm_id)
    except OSError:
        return True
