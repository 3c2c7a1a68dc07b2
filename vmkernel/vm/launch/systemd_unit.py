"""The launcher of the appliance: each VM is a jailed unit of systemd's, `mica-vm@<id>.service`.

  1. write the VM's drop-in below /run/systemd/system (systemd reads it when it loads the unit,
     which it forgets at the unit's end, so no reload is needed)
  2. listen on the VM's launch socket; start the unit; systemd connects to the socket and hands
     the connection to the unit's program, the launcher
  3. send the launcher QEMU's command line, its list of system calls and its descriptors; it becomes
     QEMU

Why a launcher program: taps, vhost-net and /dev/kvm must be opened by us and used by a QEMU that
is started by PID 1. QEMU's own way, `getfd` over QMP before the machine is built, is refused by
QEMU 10 and 11 ("permitted only after machine initialization has completed"); after it, network
cards could only be hot-plugged, which moves them in the guest. systemd passes sockets and opens
files by path, but no other descriptors, except to transient units over D-Bus, which the
appliance doesn't have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from functools import cache
from pathlib import Path

from vmkernel.devices import Accelerator
from vmkernel.host import CommandError, Runner
from vmkernel.host.accounts import ensure_account
from vmkernel.host.cgroup import Cgroup
from vmkernel.host.seccomp import compile_filter
from vmkernel.host.systemd import Systemd
from vmkernel.host.unix_socket import listen_stream
from vmkernel.jail import Program, VmJail, encode_handover, render_drop_in
from vmkernel.jail.drop_in import SWTPM
from vmkernel.jail.handover import BESIDE_FD, FIRST_QEMU_FD
from vmkernel.jail.roles import QEMU as QEMU_CALLS
from vmkernel.jail.roles import SWTPM as SWTPM_CALLS
from vmkernel.model import ErrorCode, MicaError
from vmkernel.vm.launch.launcher import LaunchRequest

__all__ = ["ApplianceLauncher"]

_log = logging.getLogger(__name__)

QEMU = "/usr/bin/qemu-system-x86_64"
_PROGRAM = Path(QEMU).name
_UNITS = Path("/run/systemd/system")
_DROP_IN = "50-vm.conf"
_ROOT = "root"
_ACCEPT_TIMEOUT_S = 30.0
_POLL_S = 0.05
_POLL_MAX_S = 0.5


class ApplianceLauncher:
    def __init__(self, vms_dir: Path, runner: Runner, *, units: Path = _UNITS) -> None:
        self._vms_dir = vms_dir
        self._systemd = Systemd(runner)
        self._units = units
        self._filter = cache(compile_filter)

    def fd_number(self, index: int, fd: int) -> int:  # noqa: ARG002 - the other launcher's
        """The launcher's descriptors are numbered in order."""
        return FIRST_QEMU_FD + index

    async def launch(self, request: LaunchRequest) -> None:
        await self.collect(request.vm_id)  # a tidying-up that failed at the last end
        unit = _unit(request.vm_id)
        path = self._vms_dir / request.vm_id / "launch.sock"
        ensure_account(f"mica-vm-{request.uid}", request.uid)
        root = path.parent / _ROOT
        root.mkdir(exist_ok=True)
        root.chmod(0o755)  # whatever our own mask: the VM's user must pass through its root
        self._write_drop_in(request, root, path)
        listener = listen_stream(path)
        try:
            listener.setblocking(False)
            try:
                await self._systemd.start(unit)
            except CommandError as error:
                status = await self._systemd.status(unit)
                raise MicaError(
                    ErrorCode.UNAVAILABLE,
                    f"The unit of VM {request.vm_id} can't be started"
                    f" ({status.result}, {status.code}): {error}",
                ) from error
            fds, beside = [request.log, *request.fds], None
            if request.tpm is not None:
                fds.append(request.tpm.fd)
                argv = [SWTPM, *request.tpm.arguments(BESIDE_FD)]
                beside = Program(argv, self._filter(SWTPM_CALLS))
            qemu = Program([QEMU, *request.arguments], self._filter(QEMU_CALLS))
            await _hand_over(listener, encode_handover(qemu, beside), fds)
        except TimeoutError as error:
            raise MicaError(
                ErrorCode.TIMED_OUT, f"The launcher of VM {request.vm_id} did not call."
            ) from error
        finally:
            listener.close()
            path.unlink(missing_ok=True)

    def is_active(self, vm_id: str) -> bool:
        return _cgroup(vm_id).populated()

    def main_pid(self, vm_id: str) -> int | None:
        return min(_cgroup(vm_id).processes(_PROGRAM), default=None)

    async def wait_gone(self, vm_id: str, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout_s, _POLL_S
        while self.is_active(vm_id):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(_POLL_MAX_S, pause * 1.5)
        return True

    def kill(self, vm_id: str) -> None:
        _cgroup(vm_id).kill()

    async def collect(self, vm_id: str) -> str | None:
        unit = _unit(vm_id)
        _remove_mount_points(self._vms_dir / vm_id / _ROOT)
        folder = self._units / f"{unit}.d"
        if not folder.is_dir():
            return None
        status = await self._systemd.status(unit)
        if status.active == "failed":
            await self._systemd.reset_failed(unit)
        with contextlib.suppress(OSError):
            (folder / _DROP_IN).unlink(missing_ok=True)
            folder.rmdir()
        if status.result == "success":
            return None
        return f"{status.result}, {status.code}"

    async def close(self) -> None: ...

    def _write_drop_in(self, request: LaunchRequest, root: Path, launch_socket: Path) -> None:
        text = render_drop_in(
            VmJail(
                vm_id=request.vm_id,
                uid=request.uid,
                root=root,
                launch_socket=launch_socket,
                memory_max_bytes=request.memory_max_bytes,
                cpu_count=request.cpu_count,
                kvm=request.accelerator is Accelerator.KVM,
                read_only=request.read_only,
                read_write=request.read_write,
                tpm=request.tpm is not None,
            )
        )
        folder = self._units / f"{_unit(request.vm_id)}.d"
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / _DROP_IN).write_text(text)


async def _hand_over(listener: socket.socket, data: bytes, fds: list[int]) -> None:
    """Send the launcher the program that it becomes."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_ACCEPT_TIMEOUT_S):
        link, _ = await loop.sock_accept(listener)
    with link:
        link.setblocking(True)
        link.settimeout(_ACCEPT_TIMEOUT_S)
        sent = socket.send_fds(link, [data], fds)
        if sent < len(data):
            await asyncio.to_thread(link.sendall, data[sent:])


def _remove_mount_points(root: Path) -> None:
    """Remove what systemd made in a jail's root to mount upon: empty files and folders, and nothing
    with content or on another file system.
    """
    try:
        device = root.lstat().st_dev
    except FileNotFoundError:
        return
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                found = path.lstat()
                if found.st_dev != device:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    path.rmdir()
                elif found.st_size == 0 or stat.S_ISLNK(found.st_mode):
                    path.unlink()
    with contextlib.suppress(OSError):
        root.rmdir()


def _unit(vm_id: str) -> str:
    return f"mica-vm@{vm_id}.service"


def _cgroup(vm_id: str) -> Cgroup:
    return Cgroup(f"mica.slice/mica-vms.slice/{_unit(vm_id)}")
