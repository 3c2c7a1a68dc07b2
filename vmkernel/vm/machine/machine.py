"""What the owner task of a VM owns: its observed state, and the session with its QEMU.

Only the owner task calls what changes anything here; other tasks may read. Other modules assign
to nothing: each change is a method, which writes down what must outlast the vmkernel first.

found by an earlier vmkernel   find_memory -> find_suspended | find_running | find_ended
a run                          qemu_started -> note_record ... -> qemu_ended
wishes                         define
memory on disk                 take_memory -> forget_memory
disks without QEMU             hold_disks -> release_disks
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from vmkernel.devices import Accelerator
from vmkernel.host.unix_socket import connect_stream
from vmkernel.model import (
    AgentStatus,
    ErrorCode,
    MemoryImageStatus,
    MicaError,
    OnPanic,
    RestartStatus,
    SecureBootStatus,
    Subject,
    Vm,
    VmState,
    VmStatus,
)
from vmkernel.qemu import (
    GuestEnded,
    Qmp,
    QmpCommandError,
    RunState,
    disk_state,
    guest_panic,
)
from vmkernel.resources import expected_bytes
from vmkernel.text import clean
from vmkernel.vm.context import VmContext
from vmkernel.vm.guest.agent import GuestAgent
from vmkernel.vm.guest.serial_console import SerialConsole
from vmkernel.vm.launch.ending import end_process
from vmkernel.vm.launch.launcher import RunFolder
from vmkernel.vm.machine.disk_full import EnospcBackoff, full_reason
from vmkernel.vm.machine.event_rate_limit import EventRateLimit
from vmkernel.vm.machine.exit_reason import UNFED
from vmkernel.vm.machine.known_keys import KnownKeys
from vmkernel.vm.machine.leaving import Leaving
from vmkernel.vm.machine.messages import Message, PendingRequest, Timer, TimerFired, fail, forward
from vmkernel.vm.machine.operation_locks import OperationLocks
from vmkernel.vm.machine.restart_policy import End, RestartPolicyState
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.machine.snapshot_index import SnapshotIndex
from vmkernel.vm.states import ACTIVE
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store import saved_memory
from vmkernel.vm.store.definition import VmDefinition
from vmkernel.vm.store.launch_record import LaunchRecord, forget_record, write_record
from vmkernel.vm.store.saved_memory import Suspension

__all__ = ["Machine", "words"]

_log = logging.getLogger(__name__)


@dataclass
class _Link:
    """The session with the present QEMU."""

    number: int
    qmp: Qmp | None = None
    pump: asyncio.Task[None] | None = None
    ended: GuestEnded | None = None


class _Seen(NamedTuple):
    """All that a VM's view is made of."""

    definition: VmDefinition
    state: VmState
    reason: str | None
    record: LaunchRecord | None
    agent: AgentStatus | None
    restart: RestartStatus | None
    memory_image: MemoryImageStatus | None
    secure_boot: SecureBootStatus | None

    def view(self) -> Vm:
        definition, record = self.definition, self.record
        return Vm(
            id=definition.id,
            revision=definition.revision,
            created_at=definition.created_at,
            spec=definition.spec,
            status=VmStatus(
                state=self.state,
                uuid=definition.uuid,
                machine_type=definition.machine_type,
                reason=None if self.reason is None else clean(self.reason, 2000),
                started_at=record.started_at if record else None,
                accelerator=record.accelerator.value if record else None,
                nics=record.nics if record else (),
                unplugging=record.unplugging if record else (),
                agent=self.agent,
                restart=self.restart,
                memory_image=self.memory_image,
                secure_boot=self.secure_boot,
            ),
        )


class Machine:
    """The observed state of one VM."""

    def __init__(
        self,
        host: VmContext,
        definition: VmDefinition,
        folder: Path,
        post: Callable[[Message], None],
        renewed: Callable[[VmDefinition], None],
    ) -> None:
        self.host = host
        self._definition = definition
        self._renewed = renewed
        self.folder = folder
        self.state = VmState.STOPPED
        self.reason: str | None = None
        self.record: LaunchRecord | None = None
        self.waiting: list[PendingRequest] = []
        """Shutdowns that were asked for and have not ended."""
        self.shutdowns = 0
        """How many were asked for: presses of the power button for earlier ones are out of date."""
        self.suspension: Suspension | None = None
        """The saved memory from which the VM continues."""
        timing = host.timing
        self.restarts = RestartPolicyState(
            timing.restart_first_s, timing.restart_last_s, timing.steady_s
        )
        self.enospc = EnospcBackoff(timing.space_first_s, timing.space_last_s)
        self.disk_full = False
        """True if the last failed disk request found no space."""
        self.ran_since: float | None = None
        self.snapshots = SnapshotIndex(folder)
        self.keys = KnownKeys()
        self.at_disks = False
        """True while its disks' files are worked on without QEMU."""
        self.interruptible: asyncio.Task[Any] | None = None
        """Long work of the owner task that a power-off need not wait for."""
        self.console = SerialConsole(
            lambda who, whom: self.publish("vm.console-taken-over", {"by": who, "from": whom})
        )
        self.locks = OperationLocks(definition.id)
        self.agent = GuestAgent(lambda: self.run_folder.agent, f"VM {definition.id}")
        self.leaving = Leaving()
        self._event_rate = EventRateLimit()
        self._shown: tuple[_Seen, Vm] | None = None
        self._link = _Link(0)
        self._post = post

    @property
    def definition(self) -> VmDefinition:
        """The stored spec and identity."""
        return self._definition

    async def define(self, new: VmDefinition) -> None:
        """Want something else from now on; durable on return. Who keeps track of all VMs is told
        after that."""
        await asyncio.to_thread(definitions.save, self.folder, new)
        self._definition = new
        self._renewed(new)

    @property
    def vm_id(self) -> str:
        return self._definition.id

    @property
    def run_folder(self) -> RunFolder:
        """Its sockets and its log."""
        return self.host.folder(self.vm_id)

    def view(self) -> Vm:
        """The VM as clients see it; the same object as before if nothing has changed, so that lists
        make, collect and encode nothing for it."""
        record = self.record if self.state in ACTIVE else None
        seen = _Seen(
            self._definition,
            self.state,
            self.reason,
            record,
            self.agent.status() if record and self._definition.spec.guest_agent else None,
            self.restarts.status(),
            self.suspension.status() if self.suspension else None,
            self.keys.status,
        )
        if self._shown is None or self._shown[0] != seen:
            self._shown = (seen, seen.view())
        return self._shown[1]

    # --- what a vmkernel finds when it starts: no change of state, so no event -----------------

    def find_memory(self, suspension: Suspension | None) -> None:
        """What the VM's folder holds of its memory."""
        self.suspension = suspension

    def find_suspended(self) -> None:
        """Its memory is on disk, and no QEMU is left."""
        assert self.suspension is not None
        forget_record(self.run_folder.record)
        self.state = VmState.SUSPENDED
        if self.suspension.problem is not None:
            self.reason = f"Its memory image can't be used: {self.suspension.problem}."

    def find_running(self, record: LaunchRecord | None) -> None:
        """Its QEMU is there, with the record of an earlier vmkernel."""
        self.find_record(record)
        self.state = VmState.RUNNING

    def find_record(self, record: LaunchRecord | None) -> None:
        """What is known of the start of a QEMU that is there; its memory is promised to it, all of
        it if the record is lost."""
        self.record = record
        if record is not None:
            need = record.memory_bytes
        else:
            probe = self.host.kvm.known
            emulated = probe is not None and not probe.usable
            accelerator = Accelerator.TCG if emulated else Accelerator.KVM
            need = expected_bytes(self.definition.spec.memory_bytes, accelerator)
        self.host.admission.note(self.vm_id, need)

    def find_ended(self, record: LaunchRecord, failure: str | None) -> None:
        """Its QEMU ended while no vmkernel was running: with a failure, or in order."""
        forget_record(self.run_folder.record)
        if failure is not None:
            self.state, self.reason = VmState.CRASHED, failure
            self.plan_restart(End.FAILED)
        else:
            self.reason = "It ended while no vmkernel was running."
            self.plan_restart(End.ASKED if record.end_asked else End.GUEST)

    # --- state --------------------------------------------------------------------------------

    def explain(self, reason: str | None) -> None:
        """Say why the VM is in its state, which stays the same."""
        self.reason = reason

    def disk_failed(self, why: str, *, full: bool) -> None:
        """A disk request failed, for want of space if `full`."""
        self.reason = f"A disk request failed: {why}"
        self.disk_full = full

    def set_state(self, state: VmState, reason: str | None = None) -> None:
        """Set the state and publish `vm.state`."""
        previous = self.state
        self.state, self.reason = state, reason
        if state is VmState.RUNNING and self.ran_since is None:
            self.ran_since = asyncio.get_running_loop().time()
        if state is not VmState.PAUSED:
            self.disk_full = False
        if previous is VmState.PAUSED and state is VmState.RUNNING:
            self.agent.note_resumed()
        if state is not previous:
            self.publish(
                "vm.state",
                {"state": state.value, "previous": previous.value, "reason": reason},
                reason or "",
            )

    def qemu_ended(
        self, state: VmState, reason: str | None = None, end: End | None = End.ASKED
    ) -> None:
        """QEMU has certainly ended; if its memory is on disk, the VM is suspended. `end` is None if
        it never ran.
        """
        if self.suspension is not None:
            state, end = VmState.SUSPENDED, End.ASKED
        end_asked = self.record is not None and self.record.end_asked
        self.host.admission.release(self.vm_id)
        forget_record(self.run_folder.record)
        self.record = None
        self.host.logs.end(self.run_folder.log)
        self.console.drain()
        self.console.end_watchers()
        self.agent.note_end()
        waiting, self.waiting = self.waiting, []
        for ask in waiting:
            if not ask.done.done():
                ask.done.set_result(None)
        self.set_state(state, reason)
        self.enospc.end()
        if end is End.GUEST and end_asked:
            end = End.ASKED
        ran_s = 0.0
        if self.ran_since is not None:
            ran_s = asyncio.get_running_loop().time() - self.ran_since
        self.ran_since = None
        if end is not None:
            self.plan_restart(end, ran_s)

    def plan_restart(self, end: End, ran_s: float = 0.0) -> None:
        """Restart the VM after a while, if its policy says so."""
        if self.host.ending.is_set():
            return
        restarts, policy = self.restarts, self.definition.spec.restart
        wait_s = restarts.after(end, policy, ran_s=ran_s, now=time.time())
        if wait_s is not None:
            self.later(wait_s, TimerFired(Timer.RESTART, restarts.number))
            self.publish(
                "vm.restart-planned",
                {"attempt": restarts.attempts, "wait_s": wait_s},
                f"It will be restarted in {wait_s:g} s.",
            )
        elif restarts.exhausted:
            given_up = f"It was started {restarts.attempts} times and will not be restarted."
            self.reason = f"{self.reason or ''} {given_up}".strip()
            self.publish("vm.restart-given-up", {"attempts": restarts.attempts}, given_up)

    def wait_for_space(self) -> None:
        """Look for free space in a while."""
        wait_s = self.enospc.begin(asyncio.get_running_loop().time())
        self.later(wait_s, TimerFired(Timer.SPACE, self.enospc.number))

    def later(self, wait_s: float, message: Message) -> None:
        """Put a message into the queue after a while."""
        asyncio.get_running_loop().call_later(wait_s, self._post, message)

    def publish(
        self, event_type: str, data: dict[str, str | int | float | bool | None], message: str = ""
    ) -> None:
        """Publish an event about this VM."""
        self.host.events.publish(
            event_type, Subject(kind="vm", id=self.vm_id), message=message, data=data
        )

    def publish_of_guest(
        self, event_type: str, data: dict[str, str | int | float | bool | None], message: str = ""
    ) -> None:
        """The same for what the guest can bring about as often as it likes."""
        left_out = self._event_rate.admit(event_type, asyncio.get_running_loop().time())
        if left_out is not None:
            self.publish(event_type, data | ({"left_out": left_out} if left_out else {}), message)

    # --- memory on disk, disks without QEMU ---------------------------------------------------

    def take_memory(self, suspension: Suspension) -> None:
        """From now on the VM's memory is what is in its folder."""
        self.suspension = suspension

    async def forget_memory(self) -> None:
        """The VM's memory is no longer what is in its folder; durable on return."""
        await asyncio.to_thread(saved_memory.forget, self.folder)
        self.suspension = None

    def hold_disks(self) -> None:
        """Its disks' files are worked on without QEMU until `release_disks`."""
        self.at_disks = True

    def release_disks(self) -> None:
        """They are worked on no longer."""
        self.at_disks = False

    @contextlib.contextmanager
    def disks_held(self) -> Iterator[None]:
        """Hold the disks during work that ends here."""
        self.hold_disks()
        try:
            yield
        finally:
            self.release_disks()

    def interrupt(self) -> bool:
        """End the long work of the owner task that can be ended; False if there is none."""
        return self.interruptible is not None and self.interruptible.cancel()

    # --- those who wait for a shutdown --------------------------------------------------------

    def begin_shutdown(self, ask: PendingRequest) -> None:
        """The guest was asked to end; its end answers the request."""
        self.note_record(end_asked=True)
        self.waiting.append(ask)
        self.set_state(VmState.STOPPING)
        self.shutdowns += 1

    def drop_waiters(self) -> None:
        """Answer the waiters whose time is over, drop those that disconnected;
        nothing is forced.
        """
        if not self.waiting:
            return
        now = asyncio.get_running_loop().time()
        for ask in list(self.waiting):
            if ask.done.done():
                self.waiting.remove(ask)
            elif ask.deadline <= now:
                self.waiting.remove(ask)
                fail(
                    ask.done,
                    MicaError(
                        ErrorCode.TIMED_OUT,
                        f"The guest of VM {self.vm_id} did not shut down in time and is still"
                        " running; power it off to force it.",
                    ),
                )
        if not self.waiting and self.state is VmState.STOPPING:
            self.set_state(VmState.RUNNING)

    def abandon_waiters(self, why: str) -> None:
        """Answer the waiters for a shutdown that won't be completed."""
        waiting, self.waiting = self.waiting, []
        for ask in waiting:
            fail(
                ask.done,
                MicaError(
                    ErrorCode.CONFLICT,
                    f"The shutdown of VM {self.vm_id} did not finish: {why}.",
                ),
            )

    # --- the session --------------------------------------------------------------------------

    @property
    def session(self) -> int:
        """The number of the present session; messages of others count no more."""
        return self._link.number

    @property
    def connected(self) -> bool:
        """True if there is a session with QEMU."""
        return self._link.qmp is not None

    @property
    def ended(self) -> GuestEnded | None:
        """What QEMU reported about its end, if anything."""
        return self._link.ended

    def note_end(self, event: GuestEnded) -> None:
        """QEMU reports that it ends."""
        self._link.ended = event

    def qmp(self) -> Qmp:
        """The session; `unavailable` if there is none now."""
        if self._link.qmp is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"QEMU of VM {self.vm_id} does not answer now; try again."
            )
        return self._link.qmp

    def running(self) -> RunningVm:
        """The interface for work inside the owner task; `unavailable` if QEMU doesn't answer."""
        return RunningVm(
            qmp=self.qmp(),
            definition=self.definition,
            record=self.record,
            folder=self.run_folder,
            write_record=self._keep_record,
        )

    def _keep_record(self, record: LaunchRecord) -> None:
        self.record = record
        write_record(self.run_folder.record, record)

    def attach_qmp(self, qmp: Qmp) -> None:
        """Begin a session: its events go to the queue, marked with its number."""
        number = self._link.number + 1
        self._link = _Link(number, qmp)
        self._link.pump = asyncio.create_task(
            forward(qmp, number, self._post), name=f"vm-{self.vm_id}-events"
        )

    def qemu_started(self, record: LaunchRecord, qmp: Qmp, *, resuming: bool = False) -> None:
        """QEMU has answered for the first time, its guest has not run yet; `resuming`: it waits
        for its memory."""
        self.record = record
        self.note_record(resuming=resuming)
        self.attach_qmp(qmp)
        self.attach_console()

    async def drop_link(self) -> None:
        """End the session; messages of it that are still queued count no more."""
        link, self._link = self._link, _Link(self._link.number + 1)
        if link.pump is not None:
            link.pump.cancel()
            await asyncio.wait((link.pump,))
        if link.qmp is not None:
            await link.qmp.close()

    async def end_qemu(self) -> None:
        """Ask QEMU to quit, and kill it if it doesn't. Raises MicaError (`timed-out`)."""
        launcher, timing = self.host.launcher, self.host.timing
        if not await end_process(
            launcher,
            self.vm_id,
            self._link.qmp,
            self.drop_link,
            quit_s=timing.quit_s,
            kill_s=timing.kill_s,
        ):
            raise MicaError(
                ErrorCode.TIMED_OUT, f"QEMU of VM {self.vm_id} can't be stopped; try again."
            )
        await launcher.collect(self.vm_id)

    def note_record(self, **changes: Any) -> None:
        """Change the record of this run for a vmkernel after a restart; written on return."""
        if self.record is not None:
            changed = replace(self.record, **changes)
            if changed != self.record:
                self.record = changed
                write_record(self.run_folder.record, changed)

    async def apply_panic_action(self, qmp: Qmp, *, fresh: bool = False) -> None:
        """Set what QEMU does when a guest reports a panic; a fresh one does nothing."""
        if fresh and self.definition.spec.on_panic is OnPanic.NONE:
            return
        with contextlib.suppress(QmpCommandError):
            await guest_panic.set_action(qmp, self.definition.spec.on_panic)

    async def note_pause(self, qmp: Qmp, status: RunState) -> None:
        """Record why a guest is paused without a request, and handle it."""
        match status:
            case RunState.IO_ERROR:
                if not self.reason:
                    full = await disk_state.is_full(qmp)
                    self.disk_failed(full_reason(self) if full else "it failed.", full=full)
                if self.disk_full:
                    self.wait_for_space()
            case RunState.INTERNAL_ERROR:
                said = self.host.last_lines(self.vm_id)
                self.reason = (
                    f"The vCPU can't continue (KVM internal error{': ' if said else ''}"
                    f"{said}); reset it, or power it off."
                )
                self.publish("vm.internal-error", {"said": said}, self.reason)
            case RunState.GUEST_PANICKED:
                self.reason = self.reason or "The guest reported a panic."
            case RunState.WATCHDOG:
                self.reason = self.reason or UNFED

    def attach_console(self) -> None:
        """Connect to the serial line of a QEMU that was just started."""
        with contextlib.suppress(OSError):
            self.console.attach(connect_stream(self.run_folder.serial))


def words(error: BaseException) -> str:
    """An exception as part of a reason."""
    return str(error) or type(error).__name__
