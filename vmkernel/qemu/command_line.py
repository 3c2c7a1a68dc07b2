"""The command line of one virtual machine, from its plan; a pure function.

Nothing is left to QEMU's defaults that a later version might change or that would open a door:
no default devices, no user configuration, every image format explicit, the seccomp sandbox on,
no listening socket of QEMU's own. Sockets come as descriptors that vmkernel bound, so that a VM
needs no folder that it can write to.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vmkernel.devices import (
    DISK_BUSES,
    Accelerator,
    Arguments,
    Family,
    FirmwarePlan,
    MachinePlan,
)
from vmkernel.devices.agent import add_agent
from vmkernel.devices.disk import IOTHREAD, Board, Unit, cdrom_medium, disk_medium
from vmkernel.devices.display import add_display
from vmkernel.devices.nic import add_nic
from vmkernel.devices.panic import add_panic
from vmkernel.devices.rng import add_rng
from vmkernel.devices.serial import add_serial
from vmkernel.devices.slots import Slots
from vmkernel.devices.usb import add_controller, add_tablet
from vmkernel.model import BootDevice, DiskBus, DisplayModel

__all__ = ["TCG_CACHE_BYTES", "build_arguments"]

TCG_CACHE_BYTES = 256 << 20
"""What TCG may hold of translated code; the memory limit of a VM counts it."""

_KVM_FDSET = 1
_MEMORY = "memory0"
_MIB = 1 << 20


def build_arguments(plan: MachinePlan) -> list[str]:
    """The arguments after the program's name."""
    args = Arguments()
    board = Board(args, Slots(plan.family, args), plan.family)
    _process(args, plan)
    _machine(args, plan)
    _processors(args, plan)
    _control(args, plan)
    _boot(args, plan)
    _disks(board, plan)
    for index, nic in enumerate(plan.nics):
        add_nic(args, board.slots, index, nic, bootindex=_bootindex(plan, "nic", index))
    add_display(args, board.slots, plan.display)
    if plan.display is not DisplayModel.NONE:
        add_tablet(args)
    add_serial(args, plan.serial)
    add_agent(args, board.slots, plan.agent_fd)
    add_rng(args, board.slots)
    add_panic(args, board.slots)
    return args.words()


def _process(args: Arguments, plan: MachinePlan) -> None:
    args.keyval("name", guest=plan.vm_id, debug_threads=True)
    args.flag("no-user-config")
    args.flag("nodefaults")
    args.keyval(
        "sandbox",
        "on",
        obsolete="deny",
        elevateprivileges="deny",
        spawn="deny",
        resourcecontrol="deny",
    )
    args.keyval("msg", timestamp=True)
    args.flag("S")
    if plan.incoming:
        args.text("incoming", "defer")


def _machine(args: Arguments, plan: MachinePlan) -> None:
    args.object("memory-backend-ram", _MEMORY, size=plan.memory_bytes, dump=False, merge=False)
    if plan.firmware is not None:
        _pflash(args, plan.firmware)
    args.keyval(
        "machine",
        plan.machine_type,
        memory_backend=_MEMORY,
        pflash0="firmware-code" if plan.firmware else None,
        pflash1="firmware-variables" if plan.firmware else None,
        usb=False,
        vmport=False,
        smm=False,
        hpet=False,
        dump_guest_core=False,
    )
    if plan.accelerator is Accelerator.KVM:
        device = None
        if plan.kvm_fd is not None:
            args.keyval("add-fd", fd=plan.kvm_fd, set=_KVM_FDSET)
            device = f"/dev/fdset/{_KVM_FDSET}"
        args.keyval("accel", "kvm", device=device)
        args.keyval("global", driver="kvm-pit", property="lost_tick_policy", value="delay")
    else:
        args.keyval("accel", "tcg", thread="multi", tb_size=TCG_CACHE_BYTES // _MIB)
    args.text("m", f"{plan.memory_bytes // _MIB}M")
    args.text("uuid", plan.uuid)
    args.keyval("smbios", type=1, manufacturer="Mica", product="Virtual Machine", uuid=plan.uuid)
    args.keyval("rtc", base="utc", driftfix="slew")
    power = "ICH9-LPC" if plan.family is Family.Q35 else "PIIX4_PM"
    for state in ("s3", "s4"):
        args.keyval("global", driver=power, property=f"disable_{state}", value=1)


def _processors(args: Arguments, plan: MachinePlan) -> None:
    model = plan.cpus.model
    if model == "host" and plan.accelerator is Accelerator.TCG:
        model = "max"
    args.text("cpu", model)
    args.keyval("smp", cpus=plan.cpus.count, sockets=1, cores=plan.cpus.count, threads=1)


def _pflash(args: Arguments, firmware: FirmwarePlan) -> None:
    for name, path, read_only in (
        ("firmware-code", firmware.code, True),
        ("firmware-variables", firmware.variables, False),
    ):
        args.blockdev(
            "file",
            f"{name}-file",
            filename=str(path),
            read_only=read_only,
            auto_read_only=False,
            discard=None if read_only else "unmap",
        )
        args.blockdev("raw", name, file=f"{name}-file", read_only=read_only)


def _control(args: Arguments, plan: MachinePlan) -> None:
    args.keyval("chardev", "socket", id="qmp", fd=plan.qmp_fd, server=True, wait=False)
    args.keyval("mon", chardev="qmp", mode="control")
    args.keyval("action", reboot="reset", shutdown="poweroff", panic="none")


def _boot(args: Arguments, plan: MachinePlan) -> None:
    args.keyval("boot", menu=False, strict=True)
    if plan.kernel is None:
        return
    args.text("kernel", str(plan.kernel.kernel))
    if plan.kernel.initrd is not None:
        args.text("initrd", str(plan.kernel.initrd))
    if plan.kernel.cmdline:
        args.text("append", plan.kernel.cmdline)


def _disks(board: Board, plan: MachinePlan) -> None:
    args = board.args
    buses = {d.bus for d in plan.disks} | {c.bus for c in plan.cdroms}
    if plan.display is not DisplayModel.NONE or DiskBus.USB in buses:
        add_controller(args, board.slots)
    if any(DISK_BUSES[bus].iothread for bus in buses):
        args.object("iothread", IOTHREAD)
    for bus in DiskBus:
        controllers = DISK_BUSES[bus].controllers
        if bus in buses and controllers is not None:
            controllers(board)
    numbers: Counter[DiskBus] = Counter()

    def place(device_id: str, bus: DiskBus, **unit: object) -> None:
        DISK_BUSES[bus].unit(board, Unit(device_id=device_id, number=numbers[bus], **unit))  # type: ignore[arg-type]
        numbers[bus] += 1

    for index, disk in enumerate(plan.disks):
        disk_medium(args, f"disk{index}-medium", disk)
        place(
            f"disk{index}",
            disk.bus,
            drive=f"disk{index}-medium",
            serial=disk.serial,
            bootindex=_bootindex(plan, "disk", index),
            cdrom=False,
        )
    for index, cdrom in enumerate(plan.cdroms):
        node = None
        if cdrom.path is not None:
            node = f"cdrom{index}-medium"
            cdrom_medium(args, node, Path(cdrom.path))
        place(
            f"cdrom{index}",
            cdrom.bus,
            drive=node,
            serial=None,
            bootindex=_bootindex(plan, "cdrom", index),
            cdrom=True,
        )


def _bootindex(plan: MachinePlan, kind: str, index: int) -> int | None:
    """The device's place in the boot order, counted from 1; None where its class isn't in it."""
    position = 1
    for device in dict.fromkeys(plan.boot_order):
        name, count = {
            BootDevice.DISK: ("disk", len(plan.disks)),
            BootDevice.CDROM: ("cdrom", len(plan.cdroms)),
            BootDevice.NETWORK: ("nic", len(plan.nics)),
        }[device]
        if name == kind:
            return position + index
        position += count
    return None
