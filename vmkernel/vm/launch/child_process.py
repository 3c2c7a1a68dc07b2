"""The launcher of hosted mode: QEMU as a child in its own session, without root, and beside it the
TPM's emulator if the VM has one.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from vmkernel.host.detached import Detached, find_detached, start_detached
from vmkernel.model import ErrorCode, MicaError
from vmkernel.qemu import PROGRAM
from vmkernel.vm.launch.launcher import LaunchRequest, TpmLaunch

__all__ = ["HostedLauncher"]

_LOCK = "qemu.lock"
_TPM_LOCK = "tpm.lock"
_SWTPM = "swtpm"


class HostedLauncher:
    """A VM's process is identified by the lock in its run folder."""

    def __init__(self, vms_dir: Path, programs: Mapping[str, Path]) -> None:
        self._vms_dir = vms_dir
        self._program = str(programs.get(PROGRAM, PROGRAM))
        self._swtpm = programs.get(_SWTPM)
        self._processes: dict[str, Detached] = {}
        self._emulators: dict[str, Detached] = {}

    def fd_number(self, index: int, fd: int) -> int:  # noqa: ARG002 - the other launcher's
        """A child keeps the numbers that descriptors have here."""
        return fd

    async def launch(self, request: LaunchRequest) -> None:
        await self.collect(request.vm_id)
        if request.tpm is not None:
            self._start_tpm(request, request.tpm)
        self._processes[request.vm_id] = start_detached(
            [self._program, *request.arguments],
            lock=request.folder.path / _LOCK,
            log=request.log,
            pass_fds=request.fds,
        )

    def is_active(self, vm_id: str) -> bool:
        return self._find(vm_id) is not None

    def main_pid(self, vm_id: str) -> int | None:
        process = self._find(vm_id)
        return None if process is None else process.pid

    async def wait_gone(self, vm_id: str, timeout_s: float) -> bool:
        process = self._find(vm_id)
        if process is not None and not await process.wait(timeout_s):
            return False
        # The emulator ends with its connection; the next start needs its state unlocked.
        emulator = find_detached(self._vms_dir / vm_id / _TPM_LOCK)
        if emulator is None:
            return True
        try:
            return await emulator.wait(timeout_s)
        finally:
            emulator.close()

    def kill(self, vm_id: str) -> None:
        process = self._find(vm_id)
        if process is not None:
            process.kill()
        emulator = find_detached(self._vms_dir / vm_id / _TPM_LOCK)
        if emulator is not None:
            emulator.kill()
            emulator.close()

    async def collect(self, vm_id: str) -> str | None:
        emulator = self._emulators.pop(vm_id, None)
        if emulator is not None:
            emulator.how_it_ended()
            emulator.close()
        process = self._processes.pop(vm_id, None)
        if process is None:
            return None
        how = process.how_it_ended()
        process.close()
        await asyncio.sleep(0)
        return None if how == "exit code 0" else how

    async def close(self) -> None:
        for process in (*self._processes.values(), *self._emulators.values()):
            process.close()
        self._processes.clear()
        self._emulators.clear()

    def _start_tpm(self, request: LaunchRequest, tpm: TpmLaunch) -> None:
        program = str(self._swtpm) if self._swtpm else shutil.which(_SWTPM)
        if program is None:
            raise MicaError.field(
                "/spec/tpm",
                f"VM {request.vm_id} needs a TPM, but this host has no {_SWTPM}: install it, or"
                " remove the TPM.",
                ErrorCode.UNAVAILABLE,
            )
        self._emulators[request.vm_id] = start_detached(
            [program, *tpm.arguments(tpm.fd)],
            lock=request.folder.path / _TPM_LOCK,
            log=request.log,
            pass_fds=(tpm.fd,),
        )

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
