"""The start of a VM, phase by phase, up to a greeted QEMU whose guest does not run yet.

phase      what it does                                              undone on failure by
  admit    promises memory                                           releasing it
  files    finds volumes and images, makes the NVRAM, gives files    (nothing)
           to the VM's user
  network  opens a port for each card                                closing them
  sockets  binds the sockets that QEMU will listen on                removing the folder
  launch   starts QEMU                                               killing it
  greet    opens the QMP session                                     killing it
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec.structs import replace as replace_fields

from vmkernel import clock
from vmkernel.devices import (
    Accelerator,
    Aio,
    CdromPlan,
    DiskPlan,
    FirmwarePlan,
    KernelPlan,
    MachinePlan,
    NicPlan,
    SerialPlan,
    TapBackend,
    UserBackend,
)
from vmkernel.host import from_os_error
from vmkernel.host.file_io import io_uring_works, takes_direct_io
from vmkernel.host.files import write_durably
from vmkernel.host.kvm import open_kvm
from vmkernel.host.unix_socket import connect_stream, listen_stream
from vmkernel.model import ErrorCode, Firmware, MicaError, NicStatus
from vmkernel.network import NetworkPort
from vmkernel.qemu import QemuProgram, Qmp, QmpLostError, build_arguments
from vmkernel.resources import expected_bytes, limit_bytes
from vmkernel.vm.definition import NVRAM_FILE, VmDefinition
from vmkernel.vm.launch import LaunchRequest, RunFolder
from vmkernel.vm.record import LaunchRecord, boot_id, write_record
from vmkernel.vm.spec_defaults import disk_bus_of, nic_model_of, with_defaults
from vmkernel.vm.surroundings import Surroundings

__all__ = ["SERIAL_RING_BYTES", "Started", "disk_serial", "start_qemu"]

SERIAL_RING_BYTES = 1 << 16
"""What QEMU itself keeps of the serial output."""

_SERIAL_MAX = 20


@dataclass(frozen=True)
class Started:
    """A QEMU that has greeted; its guest waits for `cont`."""

    qmp: Qmp
    record: LaunchRecord


@dataclass(frozen=True)
class _Files:
    """What QEMU opens by path."""

    disks: tuple[DiskPlan, ...]
    cdroms: tuple[CdromPlan, ...]
    firmware: FirmwarePlan | None
    kernel: KernelPlan | None

    def read_only(self) -> tuple[Path, ...]:
        found = [c.path for c in self.cdroms if c.path is not None]
        if self.firmware is not None:
            found.append(self.firmware.code)
        if self.kernel is not None:
            found.append(self.kernel.kernel)
            if self.kernel.initrd is not None:
                found.append(self.kernel.initrd)
        return tuple(dict.fromkeys(found))

    def read_write(self) -> tuple[Path, ...]:
        found = [disk.path for disk in self.disks]
        if self.firmware is not None:
            found.append(self.firmware.variables)
        return tuple(found)


async def start_qemu(
    host: Surroundings, definition: VmDefinition, vm_folder: Path, *, incoming: bool = False
) -> Started:
    """Go through all phases; MicaError, with everything undone, where one fails.

    An `incoming` one waits for a memory image (qemu/memory_image.py).
    """
    definition = replace_fields(definition, spec=with_defaults(definition.spec))
    vm_id, spec = definition.id, definition.spec
    accelerator = await host.accelerator()
    program = await host.program()
    need = expected_bytes(spec.memory_bytes, accelerator)
    host.admission.admit(vm_id, need)
    try:
        files = _find_files(host, definition, vm_folder)
        files = await asyncio.to_thread(_prepare_files, host, definition, files)
        async with contextlib.AsyncExitStack() as opened:
            ports = await host.network.open_ports(vm_id, spec.nics)
            for port in ports:
                opened.callback(port.close)
            folder = host.folder(vm_id)
            handover = _Handover(host, opened)
            sockets = _bind(folder, opened)
            kvm_fd = None
            if host.jailed and accelerator is Accelerator.KVM:
                device = open_kvm()
                opened.callback(os.close, device)
                kvm_fd = handover.add(device)
            plan = _plan(definition, accelerator, program, files, ports, handover, sockets)
            plan = replace(plan, kvm_fd=kvm_fd, incoming=incoming)
            record = LaunchRecord(
                boot_id=boot_id(),
                started_at=clock.now(),
                accelerator=accelerator,
                memory_bytes=need,
                nics=tuple(
                    NicStatus(
                        key=nic.key or "",
                        mac=nic.mac or "",
                        port_group=port.port_group,
                        tap=port.tap,
                    )
                    for nic, port in zip(spec.nics, ports, strict=True)
                ),
                has_ring=bool(plan.serial.scrollback_bytes),
                definition=definition,
            )
            write_record(folder.record, record)
            request = LaunchRequest(
                vm_id=vm_id,
                folder=folder,
                arguments=(*_data_dirs(host), *build_arguments(plan)),
                fds=tuple(handover.fds),
                uid=definition.uid,
                accelerator=accelerator,
                cpu_count=spec.cpus.count,
                memory_max_bytes=limit_bytes(spec.memory_bytes, accelerator),
                read_only=files.read_only(),
                read_write=files.read_write(),
            )
            await host.launcher.launch(request)
            link = connect_stream(folder.qmp)
        # Our copies of QEMU's descriptors are closed now: should QEMU end, the link ends with it.
        return Started(await _greet(host, vm_id, link), record)
    except BaseException as error:
        await asyncio.shield(_undo(host, vm_id))
        if isinstance(error, OSError):
            raise from_os_error(error, f"VM {vm_id} can't be started") from error
        raise


async def _greet(host: Surroundings, vm_id: str, link: socket.socket) -> Qmp:
    try:
        return await host.open_qmp(link, vm_id, host.timing.greeting_s)
    except QmpLostError as error:
        await host.launcher.wait_gone(vm_id, host.timing.kill_s)
        how = await host.launcher.collect(vm_id)
        said = host.folder(vm_id).last_lines() or how or "it said nothing"
        raise MicaError(
            ErrorCode.UNAVAILABLE, f"QEMU of VM {vm_id} ended while starting: {said}"
        ) from error
    except TimeoutError as error:
        raise MicaError(
            ErrorCode.TIMED_OUT,
            f"QEMU of VM {vm_id} did not answer within {host.timing.greeting_s:g} s.",
        ) from error


async def _undo(host: Surroundings, vm_id: str) -> None:
    if host.launcher.is_active(vm_id):
        host.launcher.kill(vm_id)
        await host.launcher.wait_gone(vm_id, host.timing.kill_s)
    await host.launcher.collect(vm_id)
    host.admission.release(vm_id)
    host.folder(vm_id).record.unlink(missing_ok=True)


# --- files ------------------------------------------------------------------------------------


def _find_files(host: Surroundings, definition: VmDefinition, vm_folder: Path) -> _Files:
    """Where everything lies; asks the storage, and no disk."""
    spec = definition.spec
    disks = []
    for disk in spec.disks:
        volume = host.storage.volume(disk.volume)
        disks.append(
            DiskPlan(
                bus=disk_bus_of(spec, disk),
                path=volume.path,
                format=volume.format,
                serial=disk_serial(volume.id),
                aio=Aio.THREADS,
                direct=False,
            )
        )
    cdroms = [
        CdromPlan(bus=c.bus, path=host.storage.image(c.image).path if c.image else None)
        for c in spec.cdroms
    ]
    kernel = None
    if spec.boot.kernel is not None:
        wanted = spec.boot.kernel
        kernel = KernelPlan(
            kernel=host.storage.image(wanted.kernel).path,
            initrd=host.storage.image(wanted.initrd).path if wanted.initrd else None,
            cmdline=wanted.cmdline,
        )
    firmware = None
    if spec.firmware is Firmware.UEFI:
        if host.uefi is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE,
                f"VM {definition.id} wants UEFI and this host has no OVMF:"
                " install it, or choose BIOS.",
            )
        firmware = FirmwarePlan(code=host.uefi.code, variables=vm_folder / NVRAM_FILE)
    return _Files(tuple(disks), tuple(cdroms), firmware, kernel)


def _prepare_files(host: Surroundings, definition: VmDefinition, files: _Files) -> _Files:
    """Make the files ready for QEMU; runs in a thread, because it waits for disks."""
    if files.firmware is not None and host.uefi is not None:
        variables = files.firmware.variables
        if not variables.exists():
            write_durably(variables, host.uefi.variables.read_bytes(), mode=0o600)
    if host.jailed:
        for path in files.read_write():
            os.chown(path, definition.uid, definition.uid, follow_symlinks=False)
            path.chmod(0o600)
        for path in files.read_only():
            if not path.stat().st_mode & 0o004:
                path.chmod(0o644)
    aio = Aio.IO_URING if io_uring_works() else Aio.THREADS
    disks = tuple(replace(d, aio=aio, direct=takes_direct_io(d.path)) for d in files.disks)
    return replace(files, disks=disks)


def disk_serial(volume: str) -> str:
    """What the guest reads as the disk's serial number: the volume's id, or a digest of a long
    one."""
    if len(volume) <= _SERIAL_MAX:
        return volume
    return hashlib.sha256(volume.encode()).hexdigest()[:_SERIAL_MAX]


# --- descriptors and plan ---------------------------------------------------------------------


class _Handover:
    """Collects the descriptors for QEMU and tells their numbers there."""

    def __init__(self, host: Surroundings, opened: contextlib.AsyncExitStack) -> None:
        self._host = host
        self._opened = opened
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        number = self._host.launcher.fd_number(len(self.fds), fd)
        self.fds.append(fd)
        return number


@dataclass(frozen=True)
class _Sockets:
    qmp: socket.socket
    serial: socket.socket
    agent: socket.socket


def _bind(folder: RunFolder, opened: contextlib.AsyncExitStack) -> _Sockets:
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets = []
    for path in (folder.qmp, folder.serial, folder.agent):
        sock = listen_stream(path)
        opened.callback(sock.close)
        sockets.append(sock)
    return _Sockets(*sockets)


def _plan(
    definition: VmDefinition,
    accelerator: Accelerator,
    program: QemuProgram,
    files: _Files,
    ports: list[NetworkPort],
    handover: _Handover,
    sockets: _Sockets,
) -> MachinePlan:
    spec = definition.spec
    nics = []
    for nic, port in zip(spec.nics, ports, strict=True):
        backend: TapBackend | UserBackend = UserBackend()
        if port.tap_fd is not None:
            vhost = None if port.vhost_fd is None else handover.add(port.vhost_fd)
            backend = TapBackend(handover.add(port.tap_fd), vhost, port.tap or "")
        assert nic.mac is not None
        nics.append(NicPlan(nic_model_of(spec, nic), nic.mac, backend))
    return MachinePlan(
        vm_id=definition.id,
        uuid=definition.uuid,
        machine_type=definition.machine_type,
        accelerator=accelerator,
        cpus=spec.cpus,
        memory_bytes=spec.memory_bytes,
        firmware=files.firmware,
        disks=files.disks,
        cdroms=files.cdroms,
        nics=tuple(nics),
        display=spec.display,
        boot_order=spec.boot.order,
        kernel=files.kernel,
        qmp_fd=handover.add(sockets.qmp.fileno()),
        kvm_fd=None,
        serial=SerialPlan(
            fd=handover.add(sockets.serial.fileno()),
            scrollback_bytes=SERIAL_RING_BYTES if program.has_hub else 0,
        ),
        agent_fd=handover.add(sockets.agent.fileno()),
    )


def _data_dirs(host: Surroundings) -> list[str]:
    return [word for folder in host.data_dirs for word in ("-L", str(folder))]
