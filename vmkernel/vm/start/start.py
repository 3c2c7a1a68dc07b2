"""The start of a VM, phase by phase, up to a greeted QEMU whose guest does not run yet.

phase      what it does                                              undone on failure by
  admit    promises memory, sees that huge pages can be had           releasing it
  files    finds volumes and images, makes the NVRAM, gives files    (nothing)
           to the VM's user
  network  opens a port for each NIC                                closing them
  plan     opens descriptors, binds the sockets that QEMU will       removing the folder
           listen on
  launch   starts QEMU, and before it the TPM's emulator             killing them
  greet    opens the QMP session; pulls the cables that are pulled,  killing it
           sets the balloon's target
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vmkernel import clock
from vmkernel.devices import DEVICES
from vmkernel.devices.memory import huge_page_bytes
from vmkernel.devices.plan import BootTopology
from vmkernel.host import from_os_error
from vmkernel.host.files import remove
from vmkernel.host.unix_socket import connect_stream
from vmkernel.model import ErrorCode, MicaError, NicStatus, Subject
from vmkernel.qemu import Qmp, QmpLostError, build_arguments, hotplug
from vmkernel.resources import expected_bytes, limit_bytes
from vmkernel.vm.context import VmContext
from vmkernel.vm.launch.ending import end_process
from vmkernel.vm.launch.launcher import LaunchRequest
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.start.files import find_files, prepare_files
from vmkernel.vm.start.plan import SERIAL_RING_BYTES, make_plan
from vmkernel.vm.store.definition import VmDefinition
from vmkernel.vm.store.launch_record import LaunchRecord, boot_id, write_record

__all__ = ["SERIAL_RING_BYTES", "Started", "start_qemu"]

_log = logging.getLogger(__name__)

_TPM_REFUSED = "tpm-emulator"
"""QEMU's message if swtpm ends, or refuses the state, at the machine's first reset."""


@dataclass(frozen=True)
class Started:
    """A QEMU that has greeted; its guest waits for `cont`."""

    qmp: Qmp
    record: LaunchRecord


async def start_qemu(
    host: VmContext,
    definition: VmDefinition,
    vm_folder: Path,
    *,
    incoming: BootTopology | None = None,
    reading: bool = False,
) -> Started:
    """Run all phases; MicaError, with everything undone, if one fails.

    With `incoming`, it waits for a memory image (qemu/memory_image.py) of such a machine; with
    `reading`, the guest never runs. If a TPM refuses its state, it gets the last good one.
    """
    try:
        return await _start(host, definition, vm_folder, incoming=incoming, reading=reading)
    except MicaError as error:
        refused = definition.spec.tpm and _TPM_REFUSED in error.problem.detail
        if not refused or not await asyncio.to_thread(tpm_state.go_back, vm_folder):
            raise
        _tell_of_tpm(host, definition.id, "the TPM's emulator refused it")
        return await _start(host, definition, vm_folder, incoming=incoming, reading=reading)


def _tell_of_tpm(host: VmContext, vm_id: str, why: str) -> None:
    message = (
        f"The state of its TPM was damaged ({why}); the VM starts with the copy of its last good"
        " start. What the guest has kept in the TPM since is lost."
    )
    _log.warning("VM %s: %s", vm_id, message)
    host.events.publish("vm.tpm-restored", Subject(kind="vm", id=vm_id), message=message)


async def _start(
    host: VmContext,
    definition: VmDefinition,
    vm_folder: Path,
    *,
    incoming: BootTopology | None,
    reading: bool,
) -> Started:
    definition = replace(definition, spec=with_defaults(definition.spec))
    vm_id, spec = definition.id, definition.spec
    accelerator = await host.accelerator()
    program = await host.program()
    program.check_machine(vm_id, definition.machine_type)
    await host.check_cpu_model(spec.cpus.model)
    pool_bytes = 0
    page = huge_page_bytes(spec.memory.huge_pages)
    if page is not None:
        # What the pool has already is no ordinary memory.
        taken = await asyncio.to_thread(host.huge_pages.admit, vm_id, page, spec.memory_bytes)
        pool_bytes = spec.memory_bytes - taken
    need = expected_bytes(spec.memory_bytes, accelerator) - pool_bytes
    host.admission.admit(vm_id, need)
    try:
        if spec.vsock is not None and host.prepare_vsock is not None:
            await host.prepare_vsock()
        await host.storage.refresh([disk.volume for disk in spec.disks])
        files = find_files(host, definition, vm_folder)
        files = await asyncio.to_thread(prepare_files, host, definition, files)
        if files.tpm_restored is not None:
            _tell_of_tpm(host, vm_id, files.tpm_restored)
        async with contextlib.AsyncExitStack() as opened:
            ports = await host.network.open_ports(vm_id, spec.nics)
            for port in ports:
                opened.callback(port.close)
            folder = host.folder(vm_id)
            plan = make_plan(
                host,
                definition,
                accelerator=accelerator,
                program=program,
                files=files,
                ports=ports,
                folder=folder,
                opened=opened,
                incoming=incoming,
            )
            record = LaunchRecord(
                boot_id=boot_id(),
                started_at=clock.now(),
                run=secrets.token_hex(8),
                accelerator=accelerator,
                memory_bytes=need,
                pool_bytes=pool_bytes,
                nics=tuple(
                    NicStatus(
                        key=nic.key or "",
                        mac=nic.mac or "",
                        port_group=port.port_group,
                        tap=port.tap,
                    )
                    for nic, port in zip(spec.nics, ports, strict=True)
                ),
                has_ring=program.has_hub,
                reading=reading,
                definition=(
                    definition
                    if incoming is None
                    else replace(definition, spec=with_defaults(incoming.started))
                ),
            )
            write_record(folder.record, record)
            most_bytes = max(spec.memory_bytes, spec.memory.max_bytes or 0)
            request = LaunchRequest(
                vm_id=vm_id,
                folder=folder,
                arguments=(*_data_dirs(host), *build_arguments(plan.machine)),
                fds=plan.fds,
                uid=definition.uid,
                accelerator=accelerator,
                cpu_count=spec.cpus.max_count or spec.cpus.count,
                memory_max_bytes=limit_bytes(most_bytes, accelerator),
                read_only=files.read_only(),
                read_write=files.read_write(),
                log=opened.enter_context(host.logs.begin(folder.log)),
                tpm=plan.tpm,
            )
            await host.launcher.launch(request)
            link = connect_stream(folder.qmp)
        # Our copies of QEMU's descriptors are closed now: should QEMU end, the link ends with it.
        qmp = await _greet(host, vm_id, link)
        if files.tpm_began is not None:  # QEMU greets once the TPM has taken its state
            await asyncio.to_thread(tpm_state.keep, vm_folder, files.tpm_began)
        if incoming is not None:
            await _add_processors(qmp, vm_id, spec.cpus.count - incoming.started.cpus.count)
        for device in DEVICES:
            await hotplug.apply(qmp, device.before_run(spec, incoming is not None))
        return Started(qmp, record)
    except BaseException as error:
        await asyncio.shield(_undo(host, vm_id))
        if isinstance(error, OSError):
            raise from_os_error(error, f"VM {vm_id} can't be started") from error
        raise


async def _add_processors(qmp: Qmp, vm_id: str, count: int) -> None:
    """Those that were added while the guest ran before."""
    if count > 0 and await hotplug.add_processors(qmp, count) < count:
        raise MicaError(
            ErrorCode.UNAVAILABLE,
            f"QEMU of VM {vm_id} did not add the {count} vCPUs that the suspended guest had.",
        )


async def _greet(host: VmContext, vm_id: str, link: socket.socket) -> Qmp:
    try:
        return await host.open_qmp(link, vm_id, host.timing.greeting_s)
    except QmpLostError as error:
        await host.launcher.wait_gone(vm_id, host.timing.kill_s)
        how = await host.launcher.collect(vm_id)
        said = host.last_lines(vm_id) or how or "no message"
        raise MicaError(
            ErrorCode.UNAVAILABLE, f"QEMU of VM {vm_id} ended while starting: {said}"
        ) from error
    except TimeoutError as error:
        raise MicaError(
            ErrorCode.TIMED_OUT,
            f"QEMU of VM {vm_id} did not answer within {host.timing.greeting_s:g} s.",
        ) from error


async def _undo(host: VmContext, vm_id: str) -> None:
    if host.launcher.is_active(vm_id):
        timing = host.timing
        await end_process(host.launcher, vm_id, None, quit_s=timing.quit_s, kill_s=timing.kill_s)
    await host.launcher.collect(vm_id)
    host.admission.release(vm_id)
    host.logs.end(host.folder(vm_id).log)
    remove(host.folder(vm_id).record)


def _data_dirs(host: VmContext) -> list[str]:
    return [word for folder in host.data_dirs for word in ("-L", str(folder))]
