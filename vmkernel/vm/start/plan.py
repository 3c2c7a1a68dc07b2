"""The plan of a VM's start: descriptors opened and numbered as QEMU will know them, and everything
put together."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vmkernel.devices import (
    Accelerator,
    MachinePlan,
    NicPlan,
    SerialPlan,
    TapBackend,
    UserBackend,
)
from vmkernel.devices.plan import BootTopology
from vmkernel.devices.topology import topology_of
from vmkernel.host.kvm import open_kvm
from vmkernel.host.unix_socket import listen_stream
from vmkernel.host.vsock import open_vhost_vsock
from vmkernel.model import Clock, ClockSpec, ErrorCode, MicaError, VmSpec, VsockSpec
from vmkernel.network import NetworkPort
from vmkernel.qemu import QemuProgram
from vmkernel.vm.context import VmContext
from vmkernel.vm.launch.launcher import RunFolder, TpmLaunch
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.start.files import StartFiles
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["SERIAL_RING_BYTES", "StartPlan", "make_plan", "rtc_base"]

SERIAL_RING_BYTES = 1 << 16
"""What QEMU itself keeps of the output of a serial line."""


@dataclass(frozen=True)
class StartPlan:
    """What is to be launched."""

    machine: MachinePlan
    fds: tuple[int, ...]
    """Our descriptors for QEMU, in the order of their numbers there."""
    tpm: TpmLaunch | None


class _Handover:
    """Collects the descriptors for QEMU and assigns their numbers there."""

    def __init__(self, host: VmContext) -> None:
        self._host = host
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        number = self._host.launcher.fd_number(len(self.fds), fd)
        self.fds.append(fd)
        return number


def make_plan(
    host: VmContext,
    definition: VmDefinition,
    *,
    accelerator: Accelerator,
    program: QemuProgram,
    files: StartFiles,
    ports: list[NetworkPort],
    folder: RunFolder,
    opened: contextlib.AsyncExitStack,
    incoming: BootTopology | None = None,
    now: float | None = None,
) -> StartPlan:
    """Open what QEMU is born with; `opened` closes our copies. `now`, in seconds since the epoch,
    is what the guest's clock starts with."""
    spec = definition.spec
    handover = _Handover(host)
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def listen(path: Path) -> int:
        sock = listen_stream(path)
        opened.callback(sock.close)
        return handover.add(sock.fileno())

    qmp_fd = listen(folder.qmp)
    ring = SERIAL_RING_BYTES if program.has_hub else 0
    serial = tuple(
        SerialPlan(fd=listen(folder.serial_port(port)), scrollback_bytes=ring)
        for port in range(spec.serial_ports)
    )
    agent_fd = listen(folder.agent) if spec.guest_agent else None
    kvm_fd = None
    if host.jailed and accelerator is Accelerator.KVM:
        device = open_kvm()
        opened.callback(os.close, device)
        kvm_fd = handover.add(device)
    vsock_fd = None
    if spec.vsock is not None:
        device = _open_vsock(definition.id, spec.vsock)
        opened.callback(os.close, device)
        vsock_fd = handover.add(device)
    tpm_fd, tpm = None, None
    if files.tpm is not None:
        qemus, emulators = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.callback(qemus.close)
        opened.callback(emulators.close)
        tpm_fd = handover.add(qemus.fileno())
        tpm = TpmLaunch(state=files.tpm, fd=emulators.fileno())
    machine = MachinePlan(
        vm_id=definition.id,
        uuid=definition.uuid,
        machine_type=definition.machine_type,
        accelerator=accelerator,
        spec=_as_started(spec, incoming),
        firmware=files.firmware,
        disks=files.disks,
        cdroms=files.cdroms,
        nics=_nics(definition, ports, handover),
        kernel=files.kernel,
        qmp_fd=qmp_fd,
        kvm_fd=kvm_fd,
        serial=serial,
        agent_fd=agent_fd,
        rtc_base=rtc_base(spec.clock, time.time() if now is None else now),
        vsock_fd=vsock_fd,
        tpm_fd=tpm_fd,
        incoming=incoming is not None,
        topology=None if incoming is None else _with_seed(incoming, spec),
    )
    return StartPlan(machine, tuple(handover.fds), tpm)


def _as_started(spec: VmSpec, incoming: BootTopology | None) -> VmSpec:
    """The spec with the vCPUs and the memory of the first start: disks have as many queues as it
    had vCPUs then. Later additions are added again: DIMMs on the command line, vCPUs before the
    guest runs.
    """
    if incoming is None:
        return spec
    return replace(
        spec,
        cpus=incoming.started.cpus,
        memory_bytes=spec.memory_bytes - incoming.dimm_bytes,
    )


def _with_seed(topology: BootTopology, now: VmSpec) -> BootTopology:
    """Memory images don't include cloud-init, whose drive can't change while the VM runs."""
    started = with_defaults(replace(topology.started, cloud_init=now.cloud_init))
    return topology_of(started, topology.dimms, topology.usb_units)


def rtc_base(wanted: ClockSpec, now: float) -> str:
    """What the guest's clock starts with: local time is computed here, because the jail has no
    time zone. `now` is in seconds since the epoch."""
    if wanted.base is not Clock.LOCAL:
        return "utc"
    offset_s = time.localtime(now).tm_gmtoff
    if wanted.utc_offset_minutes is not None:
        offset_s = wanted.utc_offset_minutes * 60
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + offset_s))


def _nics(
    definition: VmDefinition, ports: list[NetworkPort], handover: _Handover
) -> tuple[NicPlan, ...]:
    nics = []
    for nic, port in zip(definition.spec.nics, ports, strict=True):
        backend: TapBackend | UserBackend = UserBackend()
        if port.tap_fd is not None:
            vhost = None if port.vhost_fd is None else handover.add(port.vhost_fd)
            backend = TapBackend(handover.add(port.tap_fd), vhost, port.tap or "")
        nics.append(NicPlan.of(definition.spec, nic, backend))
    return tuple(nics)


def _open_vsock(vm_id: str, wanted: VsockSpec) -> int:
    try:
        return open_vhost_vsock()
    except OSError as error:
        raise MicaError.field(
            "/spec/vsock",
            f"VM {vm_id} needs a vsock device (CID {wanted.cid}) but this host has none"
            f" (/dev/vhost-vsock: {error.strerror}): remove it from the spec, or enable it on the"
            " host.",
            ErrorCode.UNAVAILABLE,
        ) from error
