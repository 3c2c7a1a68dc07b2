"""The VM side of a host, put together for either mode; the one place where they differ.

            appliance                         hosted
launcher    a jailed systemd unit             a child in a session of its own
network     taps on the virtual switch        QEMU's user-mode network
files       given to each VM's own user       owned by the user who runs Mica KVM a check of the
device            a short real guest
memory      all but a reserve for the host    what is available
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from firmware.guest_firmware import UEFI_SECURE_BOOT, UefiFiles, find_uefi
from vmkernel.devices import Accelerator
from vmkernel.host import Runner
from vmkernel.host.kvm import KvmProbe, glance_at_kvm, try_kvm, wait_for_kvm
from vmkernel.host.vsock import load_vhost_vsock
from vmkernel.host.worker import Workers
from vmkernel.model import HostMode
from vmkernel.network import (
    DEFAULT_PORT_GROUP,
    BridgeNetwork,
    PortGroup,
    UserNetwork,
    VmNetwork,
)
from vmkernel.qemu import QmpSession, probe_qemu
from vmkernel.resources import MemoryAdmission, host_memory, reserve_bytes
from vmkernel.storage.ports import Storage
from vmkernel.vm.context import Once, VmContext
from vmkernel.vm.launch.child_process import HostedLauncher
from vmkernel.vm.launch.launcher import Launcher
from vmkernel.vm.launch.systemd_unit import ApplianceLauncher
from vmkernel.vm.ports import Events, Operations
from vmkernel.vm.side import VmSide
from vmkernel.vm.store.launch_record import boot_id

if TYPE_CHECKING:
    from vmkernel.qemu.cpu_models import CpuModels

__all__ = ["AcceleratorWish", "assemble_vms"]

DEFAULT_SWITCH = "vswitch0"


class AcceleratorWish(StrEnum):
    """What the command line asks for."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


def assemble_vms(
    mode: HostMode,
    *,
    run_dir: Path,
    runner: Runner,
    storage: Storage,
    operations: Operations,
    events: Events,
    wish: AcceleratorWish = AcceleratorWish.AUTO,
    data_dir: Path | None = None,
    boot_name: str | None = None,
    workers: Workers | None = None,
    worker_uid: int | None = None,
) -> VmSide:
    """Choose the adapters of a mode. `run_dir` is the host's; VMs get `vm/<id>` below it.

    `data_dir` is where QEMU and OVMF find their files, if that isn't /usr/share: a folder like that
    one, or one with QEMU's files themselves. `boot_name` replaces the boot's name if Mica's own
    start counts instead of the host's.
    """
    vms_dir = run_dir / "vm"
    program = Once(lambda: probe_qemu(runner))
    folders = (data_dir,) if data_dir is not None else ()
    data_dirs = tuple(
        found
        for folder in folders
        for found in (folder, folder / "qemu", folder / "seabios")
        if found.is_dir()
    )
    uefi = find_uefi(folders=(*folders, Path("/usr/share")))
    kvm = Once(lambda: _find_kvm(mode, runner, wish, uefi, data_dirs))
    launcher: Launcher
    network: VmNetwork
    if mode is HostMode.APPLIANCE:
        launcher = ApplianceLauncher(vms_dir, runner)
        group = PortGroup(DEFAULT_PORT_GROUP, DEFAULT_SWITCH)
        network = BridgeNetwork({group.name: group})
    else:
        launcher = HostedLauncher(vms_dir, runner.programs)
        network = UserNetwork()
    host = VmContext(
        run_dir=vms_dir,
        storage=storage,
        network=network,
        launcher=launcher,
        events=events,
        admission=MemoryAdmission(
            reserve_bytes=(
                reserve_bytes(host_memory().total_bytes) if mode is HostMode.APPLIANCE else 0
            )
        ),
        open_qmp=lambda sock, name, timeout_s: QmpSession.open(sock, name, timeout_s=timeout_s),
        program=program,
        kvm=kvm,
        uefi=uefi,
        uefi_secure_boot=find_uefi(UEFI_SECURE_BOOT, folders=(*folders, Path("/usr/share"))),
        cpu_models=_cpu_models(runner),
        prepare_vsock=(partial(load_vhost_vsock, runner) if mode is HostMode.APPLIANCE else None),
        jailed=mode is HostMode.APPLIANCE,
        data_dirs=data_dirs,
        workers=workers,
        worker_uid=worker_uid,
        boot_name=boot_name or boot_id(),
    )
    return VmSide(host, operations)


def _cpu_models(runner: Runner) -> Callable[[Accelerator], Awaitable[CpuModels]]:
    """Asks QEMU once for each accelerator, when the first VM names a model."""
    known: dict[Accelerator, CpuModels] = {}

    async def ask(accelerator: Accelerator) -> CpuModels:
        from vmkernel.qemu.cpu_models import probe_cpu_models

        if accelerator not in known:
            known[accelerator] = await probe_cpu_models(runner, accelerator)
        return known[accelerator]

    return ask


async def _find_kvm(
    mode: HostMode,
    runner: Runner,
    wish: AcceleratorWish,
    uefi: UefiFiles | None,
    data_dirs: Sequence[Path],
) -> KvmProbe:
    if wish is AcceleratorWish.TCG:
        return KvmProbe(False, "Guests are emulated because the command line asks for it.")
    if mode is HostMode.APPLIANCE:
        await wait_for_kvm()
    if wish is AcceleratorWish.KVM or mode is HostMode.APPLIANCE:
        return glance_at_kvm()
    return await try_kvm(runner, uefi=uefi, data_dirs=data_dirs)
