"""Growing and moving volumes that a VM has open, while the guest writes. See ports.LiveDisks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path

from vmkernel.aio import BackgroundTasks, begun, run_to_end_then_cancel
from vmkernel.devices import DiskPlan
from vmkernel.devices.arguments import Arguments, Command
from vmkernel.devices.disk import add_disk_nodes
from vmkernel.host import from_os_error
from vmkernel.host.files import status
from vmkernel.model import ErrorCode, MicaError, VolumeFormat
from vmkernel.qemu import QemuError, block_graph, block_jobs, point_in_time
from vmkernel.storage.ports import VolumeFile
from vmkernel.vm.context import VmContext
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.start.files import disk_plan, with_access
from vmkernel.vm.states import VmRequest
from vmkernel.vm.usage import VmUsage

__all__ = ["VmLiveDisks"]

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_AGAIN_S = 2.0
_TRIES = 15
_JOB = "move-"
_BLOCKED = frozenset({VmRequest.HOLD, VmRequest.DELETE, VmRequest.RECONFIGURE})


class _Outcome(Enum):
    """What became of a mirror after its commit."""

    WENT_OVER = auto()
    STAYED = auto()
    GONE = auto()
    UNKNOWN = auto()


class VmLiveDisks:
    def __init__(
        self, vms: VmInventory, usage: VmUsage, host: VmContext, tasks: BackgroundTasks
    ) -> None:
        self._vms = vms
        self._usage = usage
        self._host = host
        self._tasks = tasks
        self._moving: set[str] = set()
        """The VMs whose moves this process is doing."""

    async def resize(self, volume: str, size_bytes: int) -> None:
        vm_id, key = self._find(volume)

        async def grow(running: RunningVm) -> None:
            await block_jobs.grow(running.qmp, key, size_bytes)

        await self._vms.use(vm_id, VmRequest.OPERATE, grow)

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
        vm_id, key = self._find(volume)
        job = f"{_JOB}{key}"
        size = self._host.storage.volume(volume, while_busy=True).size_bytes
        wanted = VolumeFile(
            id=volume, datastore="", path=target, format=target_format, size_bytes=size
        )
        with self._vms.hold(vm_id, f"volume {volume} is being moved", _BLOCKED):
            self._moving.add(vm_id)
            try:
                nodes = await begun(
                    self._vms.use(
                        vm_id, VmRequest.OPERATE, lambda running: _begin(running, key, wanted, job)
                    ),
                    lambda nodes: self._give_up(vm_id, job, nodes),
                )
                try:
                    await self._until_ready(vm_id, job, on_progress)
                except BaseException:
                    await run_to_end_then_cancel(self._give_up(vm_id, job, nodes))
                    raise
                await self._switch(vm_id, key, job, nodes, commit, revert)
            finally:
                self._moving.discard(vm_id)

    async def _until_ready(
        self, vm_id: str, job: str, on_progress: Callable[[int, int], None]
    ) -> None:
        async def poll(running: RunningVm) -> block_jobs.Job | None:
            return await block_jobs.find_job(running.qmp, job)

        while True:
            found = await self._vms.use(vm_id, VmRequest.QUERY, poll)
            if found is None or found.ended:
                reason = found.error if found is not None else None
                raise MicaError(
                    ErrorCode.UNAVAILABLE,
                    f"VM {vm_id} could not mirror its disk: {reason or 'QEMU forgot the job'}.",
                )
            on_progress(found.done, found.total)
            if found.status == "ready":
                return
            await asyncio.sleep(_POLL_S)

    async def _switch(
        self,
        vm_id: str,
        key: str,
        job: str,
        nodes: list[str],
        commit: Callable[[], Awaitable[None]],
        revert: Callable[[], Awaitable[None]],
    ) -> None:
        """The last step, which is completed even if its caller is cancelled meanwhile."""
        committed = False

        async def commit_once() -> None:
            nonlocal committed
            await commit()
            committed = True

        async def step(running: RunningVm) -> None:
            old = (await block_graph.nodes_below(running.qmp, key))[1:]
            await block_jobs.switch(running.qmp, job, commit_once)
            await block_graph.remove_nodes(running.qmp, old)

        task = asyncio.ensure_future(self._vms.use(vm_id, VmRequest.OPERATE, step))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            await asyncio.wait((task,))
            if task.exception() is not None and not await asyncio.shield(
                self._failed(vm_id, key, job, nodes, committed, revert)
            ):
                raise
            return
        if (error := task.exception()) is not None and not await self._failed(
            vm_id, key, job, nodes, committed, revert
        ):
            raise error

    async def _failed(
        self,
        vm_id: str,
        key: str,
        job: str,
        nodes: list[str],
        committed: bool,
        revert: Callable[[], Awaitable[None]],
    ) -> bool:
        """The last step did not answer with success: find out which file QEMU writes by now, and
        let that be the volume. True if it went over after all.
        """
        if not committed:
            await self._give_up(vm_id, job, nodes)
            return False
        outcome = await self._find_out(vm_id, key, job, nodes)
        if outcome is _Outcome.STAYED:
            await revert()
        elif outcome is _Outcome.UNKNOWN:
            # What was committed holds all that the guest has written: the old file may not.
            self._tasks.begin(self._settle_one(vm_id), f"settle-move-of-{vm_id}")
        return outcome is _Outcome.WENT_OVER

    async def _find_out(self, vm_id: str, key: str, job: str, nodes: list[str]) -> _Outcome:
        """End the job, and return its outcome. If QEMU is gone, what was committed counts."""

        async def step(running: RunningVm) -> _Outcome:
            await block_jobs.give_up(running.qmp, job)
            if nodes[0] in await block_graph.nodes_below(running.qmp, key):
                old = await block_graph.loose_nodes(running.qmp)
                mine = [name for name in old if name.startswith(f"{key}-")]
                await block_graph.remove_nodes(running.qmp, mine)
                return _Outcome.WENT_OVER
            await block_graph.remove_nodes(running.qmp, nodes)
            return _Outcome.STAYED

        for _ in range(_TRIES):
            try:
                return await self._vms.use(vm_id, VmRequest.OPERATE, step)
            except MicaError as error:
                if error.problem.code is not ErrorCode.UNAVAILABLE:
                    return _Outcome.GONE
                await asyncio.sleep(_AGAIN_S)
        _log.error("VM %s: its QEMU doesn't answer; what became of %s is unknown", vm_id, job)
        return _Outcome.UNKNOWN

    async def _give_up(self, vm_id: str, job: str, nodes: list[str]) -> None:
        """Remove the mirror, if there is a QEMU that has it."""

        async def step(running: RunningVm) -> None:
            await block_jobs.give_up(running.qmp, job)
            await block_graph.remove_nodes(running.qmp, nodes)

        for _ in range(_TRIES):
            try:
                await self._vms.use(vm_id, VmRequest.OPERATE, step)
            except MicaError as error:
                if error.problem.code is not ErrorCode.UNAVAILABLE:
                    return
                await asyncio.sleep(_AGAIN_S)
            else:
                return
        _log.error("VM %s: its QEMU doesn't answer; the mirror %s stays", vm_id, job)
        self._tasks.begin(self._settle_one(vm_id), f"settle-move-of-{vm_id}")

    # --- after a restart ----------------------------------------------------------------------

    async def settle(self) -> None:
        """Complete, or undo, what the previous vmkernel was doing."""
        for driver in self._vms.drivers():
            if driver.active and driver.vm_id not in self._moving:
                try:
                    await self._vms.use(driver.vm_id, VmRequest.OPERATE, self._settle)
                except MicaError as error:
                    if error.problem.code is ErrorCode.UNAVAILABLE:
                        self._tasks.begin(
                            self._settle_one(driver.vm_id), f"settle-move-of-{driver.vm_id}"
                        )

    async def _settle_one(self, vm_id: str) -> None:
        """The same for one VM, once its QEMU answers: a guest's requests may wait for that."""
        while True:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self._vms.use(vm_id, VmRequest.OPERATE, self._settle)
            except MicaError as error:
                if error.problem.code is ErrorCode.UNAVAILABLE:
                    continue
            return

    async def _settle(self, running: RunningVm) -> None:
        """The descriptions on the datastores decide."""
        if running.vm_id in self._moving:
            return
        qmp = running.qmp
        for job in await block_jobs.jobs(qmp):
            if not job.name.startswith(_JOB):
                continue
            key = job.name.removeprefix(_JOB)
            with contextlib.suppress(QemuError):
                if job.status == "pending" and await self._is_committed(running, key):
                    await block_jobs.finalize(qmp, job.name)
                else:
                    await block_jobs.give_up(qmp, job.name)
            _log.warning("VM %s: the move of %s was cut off and is settled", running.vm_id, key)
        await block_graph.remove_nodes(qmp, await block_graph.loose_nodes(qmp))
        if await point_in_time.end_all(qmp):
            _log.warning("VM %s: a backup that was cut off is ended", running.vm_id)

    async def _is_committed(self, running: RunningVm, key: str) -> bool:
        """True if the volume of a disk is the file that the mirror writes to."""
        volume = next((d.volume for d in running.definition.spec.disks if d.key == key), None)
        if volume is None:
            return False
        try:
            path = self._host.storage.volume(volume, while_busy=True).path
            found = await asyncio.to_thread(status, path)
        except (MicaError, OSError):
            return False
        below = await block_graph.nodes_below(running.qmp, key)
        return any(
            (given.device, given.inode) == (found.st_dev, found.st_ino)
            and given.node not in below
            and given.node.startswith(f"{key}-")
            for given in await block_graph.files_given(running.qmp)
        )

    def _find(self, volume: str) -> tuple[str, str]:
        # One that is suspended says so itself.
        vm_id = self._usage.active_vm_of_volume(volume) or self._usage.vm_of_volume(volume)
        if vm_id is not None:
            for disk in self._vms.get(vm_id).spec.disks:
                if disk.volume == volume and disk.key is not None:
                    return vm_id, disk.key
        raise MicaError(ErrorCode.CONFLICT, f"No running VM has volume {volume} now; try again.")


async def _begin(running: RunningVm, key: str, target: VolumeFile, job: str) -> list[str]:
    """Give QEMU the target and start the mirror; the target's nodes, from the upper one."""
    spec = running.definition.spec
    disk = next(d for d in spec.disks if d.key == key)
    try:
        plan = await asyncio.to_thread(with_access, disk_plan(spec, disk, target))
        tag = secrets.token_hex(3)
        file_node = f"{key}-file-{tag}"
        given = await block_graph.give_file(
            running.qmp, target.path, file_node, read_only=False, direct=plan.direct
        )
    except OSError as error:
        raise from_os_error(error, f"The target of volume {target.id}") from error
    nodes = [f"{key}-format-{tag}", file_node]
    try:
        source = await block_graph.top_format_node(running.qmp, key)
        plan = replace(plan, path=given.path, read_only=False, backing=())
        await block_graph.add_nodes(running.qmp, _nodes_only(plan, tag, nodes))
        try:
            await block_jobs.begin_mirror(
                running.qmp, job, root=key, source=source, target=nodes[0]
            )
        except QemuError:
            await block_graph.remove_nodes(running.qmp, nodes)
            raise
    except QemuError:
        with contextlib.suppress(QemuError):
            await block_graph.take_file_back(running.qmp, file_node)
        raise
    return nodes


def _nodes_only(plan: DiskPlan, tag: str, names: list[str]) -> list[Command]:
    """The commands for the file and the format node, without the device's own."""
    args = Arguments()
    add_disk_nodes(args, plan, tag)
    return [c for c in args.commands() if c[1].get("node-name") in names]
