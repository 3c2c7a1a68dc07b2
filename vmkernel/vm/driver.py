"""The one task that owns a VM: everybody else queues a request, QEMU queues its events.

Nothing outside this task changes a VM's state. A message is handled to its end before the next
one is looked at; what takes long and must not block the queue (a guest that is shutting down) is
a state with waiters and deadlines, not a wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from vmkernel.devices.serial import RINGBUF
from vmkernel.host import from_os_error
from vmkernel.host.unix_socket import connect_stream
from vmkernel.incidents import problem_of
from vmkernel.model import (
    ErrorCode,
    MicaError,
    Subject,
    Vm,
    VmState,
    VmStatus,
)
from vmkernel.qemu import (
    DiskError,
    GuestEnded,
    GuestPanicked,
    GuestReset,
    Paused,
    QemuError,
    QemuEvent,
    Qmp,
    QmpLostError,
    Resumed,
    RunState,
)
from vmkernel.vm import definition as definitions
from vmkernel.vm.console import SerialConsole
from vmkernel.vm.definition import VmDefinition
from vmkernel.vm.launch import RunFolder
from vmkernel.vm.record import LaunchRecord, read_record
from vmkernel.vm.starter import SERIAL_RING_BYTES, start_qemu
from vmkernel.vm.states import ACTIVE, VmRequest, check_legal
from vmkernel.vm.surroundings import Surroundings

__all__ = ["VmDriver"]

_log = logging.getLogger(__name__)


@dataclass
class _Ask:
    request: VmRequest
    done: asyncio.Future[None]
    deadline: float = 0.0
    new: VmDefinition | None = None


@dataclass(frozen=True)
class _Said:
    session: int
    event: QemuEvent | None
    """None: the connection is gone."""


@dataclass(frozen=True)
class _Reconnect:
    session: int


class _Wake:
    """A waiter has gone away: look at the waiters."""


_Message = _Ask | _Said | _Reconnect | _Wake


@dataclass
class _Link:
    """The session with the present QEMU."""

    number: int
    qmp: Qmp | None = None
    pump: asyncio.Task[None] | None = None
    ended: GuestEnded | None = None


@dataclass
class _Observed:
    """What is known of the VM beyond its definition."""

    state: VmState = VmState.STOPPED
    reason: str | None = None
    record: LaunchRecord | None = None
    waiting: list[_Ask] = field(default_factory=list)
    """Shutdowns that were asked for and have not ended."""


class VmDriver:
    """One VM. `run` is its task; the other methods may be called by anyone on the event loop."""

    def __init__(self, host: Surroundings, definition: VmDefinition, folder: Path) -> None:
        self._host = host
        self._definition = definition
        self._folder = folder
        self._queue: asyncio.Queue[_Message] = asyncio.Queue()
        self._now = _Observed()
        self._link = _Link(0)
        self._ready = asyncio.Event()
        self._deleted = False
        self.console = SerialConsole()

    # --- what anyone may ask ------------------------------------------------------------------

    @property
    def vm_id(self) -> str:
        """The VM's id."""
        return self._definition.id

    @property
    def definition(self) -> VmDefinition:
        """What is wanted of it."""
        return self._definition

    @property
    def folder(self) -> Path:
        """Its folder on the datastore."""
        return self._folder

    @property
    def state(self) -> VmState:
        """Where it stands."""
        return self._now.state

    @property
    def active(self) -> bool:
        """True where it isn't certainly off."""
        return self._now.state in ACTIVE or not self._ready.is_set()

    def view(self) -> Vm:
        """The VM as clients see it."""
        record = self._now.record if self._now.state in ACTIVE else None
        return Vm(
            id=self._definition.id,
            revision=self._definition.revision,
            created_at=self._definition.created_at,
            spec=self._definition.spec,
            status=VmStatus(
                state=self._now.state,
                uuid=self._definition.uuid,
                machine_type=self._definition.machine_type,
                reason=self._now.reason,
                started_at=record.started_at if record else None,
                accelerator=record.accelerator.value if record else None,
                nics=record.nics if record else (),
            ),
        )

    async def ready(self) -> None:
        """Wait until it is known whether the VM runs."""
        await self._ready.wait()

    def check(self, request: VmRequest) -> None:
        """Raise `conflict` where the request isn't legal now."""
        check_legal(self.vm_id, request, self._now.state)

    async def ask(self, request: VmRequest, *, timeout_s: float = 0.0) -> None:
        """Queue a request and wait for its end; cancelling gives up waiting for a shutdown."""
        await self._put(request, timeout_s=timeout_s)

    async def change(self, request: VmRequest, new: VmDefinition) -> None:
        """Queue a new definition; durable on return."""
        await self._put(request, new=new)

    async def add_vnc_client(self, fd: int) -> None:
        """Hand a connected socket to the VNC server."""
        qmp = self._link.qmp
        if qmp is None:
            raise MicaError(ErrorCode.CONFLICT, f"VM {self.vm_id} has no screen now.")
        try:
            await qmp.add_vnc_client(fd)
        except QemuError as error:
            raise MicaError(ErrorCode.UNAVAILABLE, f"{error}") from error

    async def _put(
        self, request: VmRequest, *, timeout_s: float = 0.0, new: VmDefinition | None = None
    ) -> None:
        if self._deleted:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no VM {self.vm_id}.")
        loop = asyncio.get_running_loop()
        ask = _Ask(request, loop.create_future(), loop.time() + timeout_s, new)
        self._queue.put_nowait(ask)
        await ask.done

    # --- the owner task -----------------------------------------------------------------------

    async def run(self) -> None:
        """Own the VM until cancelled or deleted."""
        try:
            try:
                await self._recover()
            except Exception as error:
                self._to(VmState.UNUSABLE, problem_of(error, f"VM {self.vm_id}").detail)
            self._ready.set()
            while not self._deleted:
                message = await self._next()
                if message is not None:
                    await self._handle(message)
        finally:
            await self._let_go()

    async def _next(self) -> _Message | None:
        """The next message; None where a waiter's time is over."""
        self._drop_waiters()
        deadline = min((ask.deadline for ask in self._now.waiting), default=None)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._queue.get()
        except TimeoutError:
            self._drop_waiters()
            return None

    async def _handle(self, message: _Message) -> None:
        if isinstance(message, _Ask):
            await self._answer(message)
            return
        if isinstance(message, _Wake):
            self._drop_waiters()
            return
        if message.session != self._link.number:
            return
        if isinstance(message, _Reconnect):
            await self._reconnect()
        elif message.event is None:
            await self._lost()
        else:
            self._note(message.event)

    async def _answer(self, ask: _Ask) -> None:
        if ask.done.cancelled():
            return
        try:
            self.check(ask.request)
            await self._carry_out(ask)
        except asyncio.CancelledError:
            ask.done.cancel()
            raise
        except QmpLostError as error:
            failure = MicaError(
                ErrorCode.UNAVAILABLE, f"{error} What became of the request is unknown: look again."
            )
            failure.__cause__ = error
            _fail(ask.done, failure)
        except QemuError as error:
            _fail(ask.done, MicaError(ErrorCode.UNAVAILABLE, str(error)))
        except OSError as error:
            _fail(ask.done, from_os_error(error, f"VM {self.vm_id}"))
        except Exception as error:
            if not isinstance(error, MicaError):
                _log.exception("VM %s: %s failed", self.vm_id, ask.request)
            _fail(ask.done, error)
        else:
            if ask not in self._now.waiting and not ask.done.done():
                ask.done.set_result(None)

    async def _carry_out(self, ask: _Ask) -> None:
        match ask.request:
            case VmRequest.START:
                await self._start()
            case VmRequest.SHUTDOWN:
                await self._shutdown(ask)
            case VmRequest.POWER_OFF:
                await self._power_off()
            case VmRequest.RESET:
                await self._reset()
            case VmRequest.RENAME | VmRequest.RECONFIGURE:
                assert ask.new is not None
                await asyncio.to_thread(definitions.save, self._folder, ask.new)
                self._definition = ask.new
            case VmRequest.DELETE:
                await self._delete()
            case VmRequest.CONSOLE:
                raise AssertionError("a console is opened outside of the queue")

    # --- requests -----------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._host.launcher.is_active(self.vm_id):
            _log.warning("VM %s: a QEMU that nobody knew of is ended", self.vm_id)
            await self._end_qemu()
        self._to(VmState.STARTING)
        self.console.clear()
        try:
            started = await start_qemu(self._host, self._definition, self._folder)
            self._now.record = started.record
            self._adopt(started.qmp)
            self._attach_console()
            await started.qmp.cont()
        except BaseException as error:
            if self._link.qmp is not None:
                await asyncio.shield(self._end_qemu())
            self._off(VmState.STOPPED, f"The last start failed: {_words(error)}")
            raise
        self._to(VmState.RUNNING)

    async def _shutdown(self, ask: _Ask) -> None:
        await self._qmp().system_powerdown()
        self._now.waiting.append(ask)
        ask.done.add_done_callback(lambda _: self._queue.put_nowait(_Wake()))
        self._to(VmState.STOPPING)

    async def _power_off(self) -> None:
        await self._end_qemu()
        self._off(VmState.STOPPED)

    async def _reset(self) -> None:
        qmp = self._qmp()
        await qmp.system_reset()
        if self._now.state is VmState.PAUSED:
            await qmp.cont()
        self._abandon_waiters("it was reset")
        self._to(VmState.RUNNING)

    async def _delete(self) -> None:
        """The definition goes first: from then on there is no such VM."""
        await asyncio.to_thread(definitions.delete, self._folder)
        self._host.folder(self.vm_id).remove()
        self._deleted = True

    # --- QEMU's side --------------------------------------------------------------------------

    def _qmp(self) -> Qmp:
        if self._link.qmp is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"QEMU of VM {self.vm_id} does not answer now; try again."
            )
        return self._link.qmp

    def _adopt(self, qmp: Qmp) -> None:
        """Begin a session: its events go to the queue, marked with its number."""
        number = self._link.number + 1
        self._link = _Link(number, qmp)
        self._link.pump = asyncio.create_task(
            self._pump(qmp, number), name=f"vm-{self.vm_id}-events"
        )

    async def _pump(self, qmp: Qmp, number: int) -> None:
        with contextlib.suppress(QmpLostError):
            while True:
                self._queue.put_nowait(_Said(number, await qmp.next_event()))
        self._queue.put_nowait(_Said(number, None))

    async def _drop_link(self) -> None:
        """End the session; messages of it that are still queued count no more."""
        link, self._link = self._link, _Link(self._link.number + 1)
        if link.pump is not None:
            link.pump.cancel()
            await asyncio.wait((link.pump,))
        if link.qmp is not None:
            await link.qmp.close()

    def _note(self, event: QemuEvent) -> None:
        state = self._now.state
        match event:
            case GuestEnded():
                self._link.ended = event
            case GuestReset():
                self._publish("vm.reset", {"by_guest": event.by_guest})
                if state in (VmState.RUNNING, VmState.PAUSED):
                    self._now.reason = None
            case Paused() if state in (VmState.RUNNING, VmState.STOPPING):
                if self._link.ended is None:
                    self._abandon_waiters("it was paused")
                    self._to(VmState.PAUSED, self._now.reason)
            case Resumed() if state is VmState.PAUSED:
                self._to(VmState.RUNNING)
            case GuestPanicked():
                self._now.reason = f"The guest reported a panic ({event.detail})."
                self._publish("vm.guest-panicked", {"detail": event.detail})
            case DiskError():
                what = "no space is left on its datastore" if event.no_space else event.detail
                self._now.reason = f"A disk request failed: {what}."
                self._publish("vm.disk-error", {"device": event.device, "no_space": event.no_space})
            case _:
                pass

    async def _lost(self) -> None:
        """The session broke: because QEMU ended, in order or not, or for a while only."""
        ended = self._link.ended
        await self._drop_link()
        timing = self._host.timing
        if await self._host.launcher.wait_gone(
            self.vm_id, timing.quit_s if ended else timing.linger_s
        ):
            how = await self._host.launcher.collect(self.vm_id)
            self._gone(ended, how)
        elif ended is not None:
            await self._end_qemu()
            self._off(VmState.STOPPED)
        else:
            await self._reconnect()

    def _gone(self, ended: GuestEnded | None, how: str | None) -> None:
        if ended is None:
            said = self._host.folder(self.vm_id).last_lines()
            detail = ": ".join(part for part in (how, said) if part)
            self._off(
                VmState.CRASHED, f"QEMU ended without notice ({detail or 'it said nothing'})."
            )
        elif ended.by_guest or ended.cause == "host-qmp-quit":
            self._off(VmState.STOPPED)
        else:
            self._off(VmState.STOPPED, f"QEMU was ended from outside ({ended.cause}).")

    async def _reconnect(self) -> None:
        """Open a session with a QEMU that lives; try again later where it doesn't answer."""
        folder = self._host.folder(self.vm_id)
        if not self._host.launcher.is_active(self.vm_id):
            self._gone(None, await self._host.launcher.collect(self.vm_id))
            return
        try:
            qmp = await self._host.open_qmp(
                connect_stream(folder.qmp), self.vm_id, self._host.timing.reconnect_s
            )
        except (OSError, TimeoutError, QmpLostError) as error:
            self._now.reason = f"Its QEMU runs and does not answer ({_words(error)})."
            number = self._link.number
            asyncio.get_running_loop().call_later(
                self._host.timing.retry_s, self._queue.put_nowait, _Reconnect(number)
            )
            return
        self._adopt(qmp)
        status = await qmp.query_status()
        if not self.console.attached:
            await self._reattach_console(qmp, folder)
        if status is RunState.PRELAUNCH:
            # The vmkernel that was asked to start it ended in the middle of that.
            await qmp.cont()
            status = RunState.RUNNING
        running = status is RunState.RUNNING
        if running and self._now.state is VmState.STOPPING:
            self._now.reason = None
            return
        self._to(VmState.RUNNING if running else VmState.PAUSED)

    async def _end_qemu(self) -> None:
        """Ask QEMU to end, and end it where it doesn't."""
        qmp = self._link.qmp
        launcher, timing = self._host.launcher, self._host.timing
        if qmp is not None:
            with contextlib.suppress(QemuError):
                async with asyncio.timeout(timing.quit_s):
                    await qmp.quit()
        await self._drop_link()
        if qmp is None or not await launcher.wait_gone(self.vm_id, timing.quit_s):
            launcher.kill(self.vm_id)
            if not await launcher.wait_gone(self.vm_id, timing.kill_s):
                raise MicaError(
                    ErrorCode.TIMED_OUT, f"QEMU of VM {self.vm_id} can't be ended; look again."
                )
        await launcher.collect(self.vm_id)

    # --- finding again ------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Find out what is true after a restart of the vmkernel."""
        folder = self._host.folder(self.vm_id)
        record = read_record(folder.record)
        if self._host.launcher.is_active(self.vm_id):
            self._now.record = record
            if record is not None:
                self._host.admission.note(self.vm_id, record.memory_bytes)
            self._now.state = VmState.RUNNING
            await self._reconnect()
            return
        how = await self._host.launcher.collect(self.vm_id)
        if record is None:
            return
        folder.record.unlink(missing_ok=True)
        if how is not None:
            said = folder.last_lines()
            self._now.state = VmState.CRASHED
            self._now.reason = f"QEMU ended without notice ({how}{': ' if said else ''}{said})."
        else:
            self._now.reason = "It ended while no vmkernel was running."

    def _attach_console(self) -> None:
        with contextlib.suppress(OSError):
            self.console.attach(connect_stream(self._host.folder(self.vm_id).serial))

    async def _reattach_console(self, qmp: Qmp, folder: RunFolder) -> None:
        """Take up the serial line again, with what came since nobody listened."""
        try:
            self.console.attach(connect_stream(folder.serial), hold=True)
        except OSError:
            return
        earlier = b""
        if self._now.record is not None and self._now.record.has_ring:
            with contextlib.suppress(QemuError):
                earlier = await qmp.ringbuf_read(RINGBUF, SERIAL_RING_BYTES)
        self.console.release(earlier)

    # --- state --------------------------------------------------------------------------------

    def _off(self, state: VmState, reason: str | None = None) -> None:
        """QEMU is certainly gone."""
        self._host.admission.release(self.vm_id)
        self._host.folder(self.vm_id).record.unlink(missing_ok=True)
        self._now.record = None
        self.console.drain()
        self.console.end_watchers()
        waiting, self._now.waiting = self._now.waiting, []
        for ask in waiting:
            if not ask.done.done():
                ask.done.set_result(None)
        self._to(state, reason)

    def _to(self, state: VmState, reason: str | None = None) -> None:
        previous = self._now.state
        self._now.state, self._now.reason = state, reason
        if state is not previous:
            self._publish(
                "vm.state",
                {"state": state.value, "previous": previous.value, "reason": reason},
                reason or "",
            )

    def _publish(
        self, event_type: str, data: dict[str, str | int | float | bool | None], message: str = ""
    ) -> None:
        self._host.events.publish(
            event_type, Subject(kind="vm", id=self.vm_id), message=message, data=data
        )

    def _drop_waiters(self) -> None:
        """Tell those whose time is over, forget those who went away; nothing is forced."""
        if not self._now.waiting:
            return
        now = asyncio.get_running_loop().time()
        for ask in list(self._now.waiting):
            if ask.done.done():
                self._now.waiting.remove(ask)
            elif ask.deadline <= now:
                self._now.waiting.remove(ask)
                _fail(
                    ask.done,
                    MicaError(
                        ErrorCode.TIMED_OUT,
                        f"The guest of VM {self.vm_id} did not shut down in time and runs on;"
                        " power it off where it must end.",
                    ),
                )
        if not self._now.waiting and self._now.state is VmState.STOPPING:
            self._to(VmState.RUNNING)

    def _abandon_waiters(self, why: str) -> None:
        waiting, self._now.waiting = self._now.waiting, []
        for ask in waiting:
            _fail(
                ask.done,
                MicaError(
                    ErrorCode.CONFLICT,
                    f"The shutdown of VM {self.vm_id} did not come to its end: {why}.",
                ),
            )

    async def _let_go(self) -> None:
        """The task ends: the VM, where it runs, runs on."""
        await self._drop_link()
        self.console.close()
        failure = MicaError(
            ErrorCode.NOT_FOUND if self._deleted else ErrorCode.UNAVAILABLE,
            f"There is no VM {self.vm_id} any more."
            if self._deleted
            else "The vmkernel is ending; ask again in a moment.",
        )
        asks = list(self._now.waiting)
        while not self._queue.empty():
            message = self._queue.get_nowait()
            if isinstance(message, _Ask):
                asks.append(message)
        for ask in asks:
            _fail(ask.done, failure)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
