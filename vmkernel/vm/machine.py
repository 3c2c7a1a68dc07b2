"""What the owner task of a VM owns: its observed state, and the session with its QEMU.

Only the owner task calls what changes anything here; everybody else may read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmkernel.devices.serial import RINGBUF
from vmkernel.host.unix_socket import connect_stream
from vmkernel.model import ErrorCode, MicaError, Subject, Vm, VmState, VmStatus
from vmkernel.qemu import GuestEnded, QemuError, Qmp, QmpLostError, RunState
from vmkernel.qemu.guest_agent import agent_is_open
from vmkernel.vm.agent import GuestAgent
from vmkernel.vm.console import SerialConsole
from vmkernel.vm.definition import VmDefinition
from vmkernel.vm.holds import Holds
from vmkernel.vm.launch import RunFolder
from vmkernel.vm.messages import Ask, Message, Reconnect, Said, fail
from vmkernel.vm.record import LaunchRecord, read_record
from vmkernel.vm.running import Running
from vmkernel.vm.starter import SERIAL_RING_BYTES
from vmkernel.vm.states import ACTIVE
from vmkernel.vm.surroundings import Surroundings

__all__ = ["Machine", "words"]

_log = logging.getLogger(__name__)


@dataclass
class _Link:
    """The session with the present QEMU."""

    number: int
    qmp: Qmp | None = None
    pump: asyncio.Task[None] | None = None
    ended: GuestEnded | None = None


class Machine:
    """One VM from within."""

    def __init__(
        self,
        host: Surroundings,
        definition: VmDefinition,
        folder: Path,
        post: Callable[[Message], None],
    ) -> None:
        self.host = host
        self.definition = definition
        self.folder = folder
        self.state = VmState.STOPPED
        self.reason: str | None = None
        self.record: LaunchRecord | None = None
        self.waiting: list[Ask] = []
        """Shutdowns that were asked for and have not ended."""
        self.console = SerialConsole(
            lambda who, whom: self.publish("vm.console-taken-over", {"by": who, "from": whom})
        )
        self.holds = Holds(definition.id)
        self.agent = GuestAgent(lambda: self.run_folder.agent, f"VM {definition.id}")
        self._link = _Link(0)
        self._post = post

    @property
    def vm_id(self) -> str:
        """The VM's id."""
        return self.definition.id

    @property
    def run_folder(self) -> RunFolder:
        """Its sockets and its log."""
        return self.host.folder(self.vm_id)

    def view(self) -> Vm:
        """The VM as clients see it."""
        record = self.record if self.state in ACTIVE else None
        return Vm(
            id=self.definition.id,
            revision=self.definition.revision,
            created_at=self.definition.created_at,
            spec=self.definition.spec,
            status=VmStatus(
                state=self.state,
                uuid=self.definition.uuid,
                machine_type=self.definition.machine_type,
                reason=self.reason,
                started_at=record.started_at if record else None,
                accelerator=record.accelerator.value if record else None,
                nics=record.nics if record else (),
                agent=self.agent.status() if self.definition.spec.guest_agent and record else None,
            ),
        )

    # --- state --------------------------------------------------------------------------------

    def to(self, state: VmState, reason: str | None = None) -> None:
        """Be in a state, and tell of it."""
        previous = self.state
        self.state, self.reason = state, reason
        if state is not previous:
            self.publish(
                "vm.state",
                {"state": state.value, "previous": previous.value, "reason": reason},
                reason or "",
            )

    def off(self, state: VmState, reason: str | None = None) -> None:
        """QEMU is certainly gone."""
        self.host.admission.release(self.vm_id)
        self.run_folder.record.unlink(missing_ok=True)
        self.record = None
        self.console.drain()
        self.console.end_watchers()
        self.agent.note_end()
        waiting, self.waiting = self.waiting, []
        for ask in waiting:
            if not ask.done.done():
                ask.done.set_result(None)
        self.to(state, reason)

    def publish(
        self, event_type: str, data: dict[str, str | int | float | bool | None], message: str = ""
    ) -> None:
        """Publish an event about this VM."""
        self.host.events.publish(
            event_type, Subject(kind="vm", id=self.vm_id), message=message, data=data
        )

    # --- those who wait for a shutdown --------------------------------------------------------

    def drop_waiters(self) -> None:
        """Tell those whose time is over, forget those who went away; nothing is forced."""
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
                        f"The guest of VM {self.vm_id} did not shut down in time and runs on;"
                        " power it off where it must end.",
                    ),
                )
        if not self.waiting and self.state is VmState.STOPPING:
            self.to(VmState.RUNNING)

    def abandon_waiters(self, why: str) -> None:
        """Tell those who wait for a shutdown that it won't come to its end."""
        waiting, self.waiting = self.waiting, []
        for ask in waiting:
            fail(
                ask.done,
                MicaError(
                    ErrorCode.CONFLICT,
                    f"The shutdown of VM {self.vm_id} did not come to its end: {why}.",
                ),
            )

    # --- the session --------------------------------------------------------------------------

    @property
    def session(self) -> int:
        """The number of the present session; messages of others count no more."""
        return self._link.number

    @property
    def connected(self) -> bool:
        """True where there is a session with QEMU."""
        return self._link.qmp is not None

    @property
    def ended(self) -> GuestEnded | None:
        """What QEMU said of its end, where it did."""
        return self._link.ended

    def note_end(self, event: GuestEnded) -> None:
        """QEMU says that it ends."""
        self._link.ended = event

    def qmp(self) -> Qmp:
        """The session; `unavailable` where there is none now."""
        if self._link.qmp is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"QEMU of VM {self.vm_id} does not answer now; try again."
            )
        return self._link.qmp

    def running(self) -> Running:
        """What work inside the owner task is given; `unavailable` where QEMU doesn't answer."""
        return Running(
            qmp=self.qmp(), definition=self.definition, record=self.record, folder=self.run_folder
        )

    def adopt(self, qmp: Qmp) -> None:
        """Begin a session: its events go to the queue, marked with its number."""
        number = self._link.number + 1
        self._link = _Link(number, qmp)
        self._link.pump = asyncio.create_task(
            self._pump(qmp, number), name=f"vm-{self.vm_id}-events"
        )

    async def drop_link(self) -> None:
        """End the session; messages of it that are still queued count no more."""
        link, self._link = self._link, _Link(self._link.number + 1)
        if link.pump is not None:
            link.pump.cancel()
            await asyncio.wait((link.pump,))
        if link.qmp is not None:
            await link.qmp.close()

    async def end_qemu(self) -> None:
        """Ask QEMU to end, and end it where it doesn't."""
        qmp = self._link.qmp
        launcher, timing = self.host.launcher, self.host.timing
        if qmp is not None:
            with contextlib.suppress(QemuError):
                async with asyncio.timeout(timing.quit_s):
                    await qmp.quit()
        await self.drop_link()
        if qmp is None or not await launcher.wait_gone(self.vm_id, timing.quit_s):
            launcher.kill(self.vm_id)
            if not await launcher.wait_gone(self.vm_id, timing.kill_s):
                raise MicaError(
                    ErrorCode.TIMED_OUT, f"QEMU of VM {self.vm_id} can't be ended; look again."
                )
        await launcher.collect(self.vm_id)

    async def lost(self) -> None:
        """The session broke: because QEMU ended, in order or not, or for a while only."""
        ended = self._link.ended
        await self.drop_link()
        timing = self.host.timing
        if await self.host.launcher.wait_gone(
            self.vm_id, timing.quit_s if ended else timing.linger_s
        ):
            how = await self.host.launcher.collect(self.vm_id)
            self._gone(ended, how)
        elif ended is not None:
            await self.end_qemu()
            self.off(VmState.STOPPED)
        else:
            await self.reconnect()

    async def reconnect(self) -> None:
        """Open a session with a QEMU that lives; try again later where it doesn't answer."""
        folder = self.run_folder
        if not self.host.launcher.is_active(self.vm_id):
            self._gone(None, await self.host.launcher.collect(self.vm_id))
            return
        try:
            qmp = await self.host.open_qmp(
                connect_stream(folder.qmp), self.vm_id, self.host.timing.reconnect_s
            )
        except (OSError, TimeoutError, QmpLostError) as error:
            self.reason = f"Its QEMU runs and does not answer ({words(error)})."
            asyncio.get_running_loop().call_later(
                self.host.timing.retry_s, self._post, Reconnect(self.session)
            )
            return
        self.adopt(qmp)
        status = await qmp.query_status()
        with contextlib.suppress(QemuError):
            self.agent.note_channel(await agent_is_open(qmp))
        if not self.console.attached:
            await self._reattach_console(qmp, folder)
        if status is RunState.PRELAUNCH:
            # The vmkernel that was asked to start it ended in the middle of that.
            await qmp.cont()
            status = RunState.RUNNING
        running = status is RunState.RUNNING
        if running and self.state is VmState.STOPPING:
            self.reason = None
            return
        self.to(VmState.RUNNING if running else VmState.PAUSED)

    async def recover(self) -> None:
        """Find out what is true after a restart of the vmkernel."""
        folder = self.run_folder
        record = read_record(folder.record)
        if self.host.launcher.is_active(self.vm_id):
            self.record = record
            if record is not None:
                self.host.admission.note(self.vm_id, record.memory_bytes)
            self.state = VmState.RUNNING
            await self.reconnect()
            return
        how = await self.host.launcher.collect(self.vm_id)
        if record is None:
            return
        folder.record.unlink(missing_ok=True)
        if how is not None:
            said = folder.last_lines()
            self.state = VmState.CRASHED
            self.reason = f"QEMU ended without notice ({how}{': ' if said else ''}{said})."
        else:
            self.reason = "It ended while no vmkernel was running."

    def attach_console(self) -> None:
        """Take up the serial line of a QEMU that was just started."""
        with contextlib.suppress(OSError):
            self.console.attach(connect_stream(self.run_folder.serial))

    def _gone(self, ended: GuestEnded | None, how: str | None) -> None:
        if ended is None:
            said = self.run_folder.last_lines()
            detail = ": ".join(part for part in (how, said) if part)
            self.off(VmState.CRASHED, f"QEMU ended without notice ({detail or 'it said nothing'}).")
        elif ended.by_guest or ended.cause == "host-qmp-quit":
            self.off(VmState.STOPPED)
        else:
            self.off(VmState.STOPPED, f"QEMU was ended from outside ({ended.cause}).")

    async def _pump(self, qmp: Qmp, number: int) -> None:
        with contextlib.suppress(QmpLostError):
            while True:
                self._post(Said(number, await qmp.next_event()))
        self._post(Said(number, None))

    async def _reattach_console(self, qmp: Qmp, folder: RunFolder) -> None:
        """Take up the serial line again, with what came since nobody listened."""
        try:
            self.console.attach(connect_stream(folder.serial), hold=True)
        except OSError:
            return
        earlier = b""
        if self.record is not None and self.record.has_ring:
            with contextlib.suppress(QemuError):
                earlier = await qmp.ringbuf_read(RINGBUF, SERIAL_RING_BYTES)
        self.console.release(earlier)


def words(error: BaseException) -> str:
    """An exception as part of a reason."""
    return str(error) or type(error).__name__
