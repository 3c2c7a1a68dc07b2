"""Whatever happens to a VM in whatever order: requests, QEMU's reports and deaths, the end of a
vmkernel and the start of the next.

No request is lost, no state contradicts the truth for long, no VM and no disk has two QEMUs (the
launcher checks that), a guest never runs beside a memory image of its past, and in the end the VM
can be deleted.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.vm.fake_qemu import FakeQemu
from vmkernel.model import (
    DiskSpec,
    MicaError,
    OnPanic,
    OperationState,
    RestartPolicy,
    RestartSpec,
    VmAction,
    VmState,
)
from vmkernel.qemu import DiskError, GuestPanicked, RunState
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.states import ACTIVE, OFF, VmRequest

from .world import World

STILL = (RunState.PAUSED, RunState.INTERNAL_ERROR, RunState.GUEST_PANICKED, RunState.IO_ERROR)


class AnyOrder(RuleBasedStateMachine):
    """One VM with one disk."""

    @initialize(policy=st.sampled_from(RestartPolicy), on_panic=st.sampled_from(OnPanic))
    def make(self, policy: RestartPolicy, on_panic: OnPanic) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.world = World(self.root)
        self.world.storage.add_volume("disk")
        self.asked: list[str] = []
        self.run(self.world.vms.start())
        self.run(
            self.world.create(
                disks=(DiskSpec(volume="disk"),),
                restart=RestartSpec(policy=policy, max_attempts=3),
                on_panic=on_panic,
            )
        )

    def run(self, work: object) -> object:
        """Let something happen, within bounds."""

        async def bounded() -> object:
            async with asyncio.timeout(20):
                return await work  # type: ignore[misc]

        return self.runner.run(bounded())

    @property
    def state(self) -> VmState:
        """Where the VM is said to stand."""
        return self.world.vms.inventory.get("web").status.state

    @property
    def qemu(self) -> FakeQemu | None:
        """Its QEMU, where one lives."""
        found = self.world.launcher.qemus.get("web")
        return found if found is not None and found.alive else None

    # --- requests -----------------------------------------------------------------------------

    @rule(action=st.sampled_from(VmAction))
    def ask(self, action: VmAction) -> None:
        """Somebody asks for an action, and waits for nothing."""

        async def begin() -> None:
            try:
                operation = await self.world.vms.power.act(
                    "web", action, timeout_s=0.03, actor="test"
                )
            except MicaError:
                return
            self.asked.append(operation.id)

        self.run(begin())

    @rule()
    def give_up(self) -> None:
        """The last one who asked gives up."""

        async def cancel() -> None:
            try:
                await self.world.operations.cancel(self.asked[-1], "test")
            except MicaError:
                return

        if self.asked:
            self.run(cancel())

    @rule()
    def look(self) -> None:
        """Another part asks QEMU something."""

        async def query(running: RunningVm) -> object:
            return await running.qmp.query_status()

        async def use() -> None:
            try:
                await self.world.vms.inventory.use("web", VmRequest.QUERY, query)
            except MicaError:
                return

        self.run(use())

    # --- the guest and its QEMU ----------------------------------------------------------------

    @rule(obeys=st.booleans(), slow=st.booleans(), answers=st.booleans())
    def change_mind(self, obeys: bool, slow: bool, answers: bool) -> None:
        """The guest and QEMU behave otherwise from now on."""
        if self.qemu is None:
            return
        self.qemu.obeys, self.qemu.slow, self.qemu.answers = obeys, slow, answers

    @rule(why=st.sampled_from(STILL))
    def stand_still(self, why: RunState) -> None:
        """The guest stands still."""
        qemu = self.qemu  # no precondition: it may end at any time, and rules must not depend on it
        if qemu is None:
            return

        async def happen() -> None:
            if why is RunState.IO_ERROR:
                qemu.say(DiskError("disk0", no_space=True, detail="full"))
            if why is RunState.GUEST_PANICKED:
                qemu.say(GuestPanicked("pause"))
            qemu.pause(why)

        self.run(happen())

    @rule(
        how=st.sampled_from(["die", "guest-shutdown", "guest-panic", "host-signal", "drop", "run"])
    )
    def happen(self, how: str) -> None:
        """QEMU dies, ends in order, or loses its sessions."""
        qemu = self.qemu  # no precondition: it may end at any time, and rules must not depend on it
        if qemu is None:
            return

        async def happen() -> None:
            if how == "die":
                qemu.die()
            elif how == "drop":
                qemu.drop_sessions()
            elif how == "run":
                if qemu.status is RunState.PAUSED:
                    qemu.memory += b"."
            else:
                qemu.end(by_guest=how.startswith("guest"), cause=how)

        self.run(happen())

    # --- the vmkernel and the world ------------------------------------------------------------

    @rule()
    def fail_next(self) -> None:
        """The next start fails."""
        self.world.launcher.fail_next = "broken"

    @rule()
    def restart(self) -> None:
        """The vmkernel ends, and another one starts; those who had asked get no answer."""
        self.run(self.world.restart())
        self.asked.clear()

    @rule()
    def wait(self) -> None:
        """Time passes."""
        self.run(asyncio.sleep(0.02))

    # --- what holds ----------------------------------------------------------------------------

    @invariant()
    def no_guest_runs_beside_its_past(self) -> None:
        if not hasattr(self, "world") or self.qemu is None:
            return
        image = self.root / "ds/main/vms/web/suspend.json"
        assert not (self.qemu.status is RunState.RUNNING and image.exists())

    def teardown(self) -> None:
        """Everything comes to its end."""
        if not hasattr(self, "world"):
            return
        try:
            self.run(self._come_to_an_end())
        finally:
            self.runner.close()
            shutil.rmtree(self.root)

    async def _come_to_an_end(self) -> None:
        world = self.world
        if self.qemu is not None:
            self.qemu.answers, self.qemu.slow = True, False
            if self.qemu.migration.get("status") == "active":
                self.qemu.migration = {"status": "failed", "error-desc": "it took too long"}
        for operation_id in self.asked:
            operation = await world.operations.wait(operation_id, 12)
            assert operation.state.finished, f"{operation.kind} got no answer"
        world.host.ending.set()  # nothing starts of itself any more
        await world.until(lambda: self.state in (ACTIVE if self.qemu is not None else OFF))
        if self.qemu is not None:
            ended = await world.act(VmAction.POWER_OFF)
            assert ended.state is OperationState.SUCCEEDED, ended.error
        assert world.launcher.qemus == {}
        assert world.host.admission.promised_bytes == 0
        await world.vms.changes.delete("web", with_volumes=True, actor="test")
        assert world.storage.deleted == ["disk"]
        assert world.vms.inventory.list_vms() == ()
        await world.operations.close()
        await world.vms.stop()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=30,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
