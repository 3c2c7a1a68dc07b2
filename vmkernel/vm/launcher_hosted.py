"""The launcher of hosted mode: QEMU as a child in a session of its own, without root."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from vmkernel.host.detached import Detached, find_detached, start_detached
from vmkernel.qemu import PROGRAM
from vmkernel.vm.launch import LaunchRequest

__all__ = ["HostedLauncher"]

_LOCK = "qemu.lock"


class HostedLauncher:
    """See Launcher. A VM's process is known by the lock in its run folder."""

    def __init__(self, vms_dir: Path, programs: Mapping[str, Path]) -> None:
        self._vms_dir = vms_dir
        self._program = str(programs.get(PROGRAM, PROGRAM))
        self._processes: dict[str, Detached] = {}

    def fd_number(self, index: int, fd: int) -> int:  # noqa: ARG002 - the other launcher's
        """A child keeps the numbers that descriptors have here."""
        return fd

    async def launch(self, request: LaunchRequest) -> None:
        """See Launcher."""
        await self.collect(request.vm_id)
        self._processes[request.vm_id] = start_detached(
            [self._program, *request.arguments],
            lock=request.folder.path / _LOCK,
            log=request.folder.log,
            pass_fds=request.fds,
        )

    def is_active(self, vm_id: str) -> bool:
        """See Launcher."""
        return self._find(vm_id) is not None

    def main_pid(self, vm_id: str) -> int | None:
        """See Launcher."""
        process = self._find(vm_id)
        return None if process is None else process.pid

    async def wait_gone(self, vm_id: str, timeout_s: float) -> bool:
        """See Launcher."""
        process = self._find(vm_id)
        return process is None or await process.wait(timeout_s)

    def kill(self, vm_id: str) -> None:
        """See Launcher."""
        process = self._find(vm_id)
        if process is not None:
            process.kill()

    async def collect(self, vm_id: str) -> str | None:
        """See Launcher."""
        process = self._processes.pop(vm_id, None)
        if process is None:
            return None
        how = process.how_it_ended()
        process.close()
        await asyncio.sleep(0)
        return None if how == "exit code 0" else how

    async def close(self) -> None:
        """See Launcher."""
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def _find(self, vm_id: str) -> Detached | None:
        known = self._processes.get(vm_id)
        if known is not None and known.child is not None:
            return None if known.child.poll() is not None else known
        found = find_detached(self._vms_dir / vm_id / _LOCK)
        if known is not None:
            known.close()
            del self._processes[vm_id]
        if found is not None:
            self._processes[vm_id] = found
        return found
