"""The command line of one virtual machine, from its plan; a pure function.

Nothing is left to QEMU's defaults that a later version might change or that would open a door:
no default devices, no user configuration, every image format explicit, the seccomp sandbox on,
no listening socket of QEMU's own. Sockets come as descriptors that vmkernel bound, so that a VM
needs no folder that it can write to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from vmkernel.devices import (
    DISK_BUSES,
    Accelerator,
    Arguments,
    CdromPlan,
    DiskPlan,
    Family,
    FirmwarePlan,
    MachinePlan,
    NicPlan,
)
from vmkernel.devices.agent import add_agent
from vmkernel.devices.balloon import add_balloon
from vmkernel.devices.disk import (
    IOTHREAD,
    Board,
    add_cdrom_nodes,
    add_disk_nodes,
    cdrom_unit,
    disk_unit,
)
from vmkernel.devices.display import add_display
from vmkernel.devices.memory import MEMORY, add_dimm, add_memory
from vmkernel.devices.nic import NIC_KINDS, add_nic
from vmkernel.devices.panic import add_panic
from vmkernel.devices.plan import Beginning, number_of
from vmkernel.devices.processors import add_processors
from vmkernel.devices.rng import add_rng
from vmkernel.devices.serial import add_serial
from vmkernel.devices.slots import Slots
from vmkernel.devices.tpm import add_tpm
from vmkernel.devices.usb import add_controller, add_keyboard, add_tablet
from vmkernel.devices.vsock import add_vsock
from vmkernel.devices.watchdog import ACTION_WORDS, add_watchdog
from vmkernel.model import BootDevice, DiskBus, DisplayModel, HugePages

__all__ = ["TCG_CACHE_BYTES", "build_arguments"]

TCG_CACHE_BYTES = 256 << 20
"""What TCG may hold of translated code; the memory limit of a VM counts it."""

_KVM_FDSET = 1
_MIB = 1 << 20


def build_arguments(plan: MachinePlan) -> list[str]:
    """The arguments after the program's name."""
    args = Arguments()
    board = Board(args, Slots(plan.family, args), plan.family)
    order = _boot_order(plan)
    _process(args, plan)
    _machine(args, plan)
    add_processors(args, plan)
    _control(args, plan)
    _boot(args, plan)
    begun = plan.beginning or _beginning(plan)
    board.slots.add_ports(begun, plan.hot_plug)
    _usb(board, plan, begun)
    _disks(board, plan, begun, order)
    for nic in plan.nics:
        add_nic(args, board.slots, number_of(nic.key), nic, bootindex=order.get(nic.key))
    add_display(args, board.slots, plan.display)
    for port, line in enumerate(plan.serial):
        add_serial(args, port, line)
    _small_devices(board, plan)
    return args.words()


def _beginning(plan: MachinePlan) -> Beginning:
    """That of a machine that begins now."""
    buses = frozenset({d.bus for d in plan.disks} | {c.bus for c in plan.cdroms})
    return Beginning(
        pci_disks=tuple(number_of(d.key) for d in plan.disks if DISK_BUSES[d.bus].pci),
        express_nics=tuple(number_of(n.key) for n in plan.nics if NIC_KINDS[n.model].express),
        buses=buses,
        usb=plan.display is not DisplayModel.NONE or plan.keyboard or DiskBus.USB in buses,
        other_disks=tuple(number_of(d.key) for d in plan.disks if not DISK_BUSES[d.bus].pci),
        other_nics=tuple(number_of(n.key) for n in plan.nics if not NIC_KINDS[n.model].express),
    )


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
    add_memory(args, plan.memory_bytes, plan.memory.max_bytes, plan.huge_pages)
    for number, size_bytes in plan.beginning.dimms if plan.beginning is not None else ():
        add_dimm(args, number, size_bytes, plan.huge_pages)
    if plan.firmware is not None:
        _pflash(args, plan.firmware)
    secure = plan.firmware is not None and plan.firmware.secure
    args.keyval(
        "machine",
        plan.machine_type,
        memory_backend=MEMORY,
        pflash0="firmware-code" if plan.firmware else None,
        pflash1="firmware-variables" if plan.firmware else None,
        usb=False,
        vmport=False,
        smm=secure,
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
    args.text("uuid", plan.uuid)
    args.keyval("smbios", type=1, manufacturer="Mica", product="Virtual Machine", uuid=plan.uuid)
    args.keyval("rtc", base=plan.rtc_base, driftfix="slew")
    power = "ICH9-LPC" if plan.family is Family.Q35 else "PIIX4_PM"
    for state in ("s3", "s4"):
        args.keyval("global", driver=power, property=f"disable_{state}", value=1)


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
    if firmware.secure:
        args.keyval("global", driver="cfi.pflash01", property="secure", value=True)


def _control(args: Arguments, plan: MachinePlan) -> None:
    args.keyval("chardev", "socket", id="qmp", fd=plan.qmp_fd, server=True, wait=False)
    args.keyval("mon", chardev="qmp", mode="control")
    action = None if plan.watchdog is None else ACTION_WORDS[plan.watchdog.action]
    args.keyval("action", reboot="reset", shutdown="poweroff", panic="none", watchdog=action)


def _boot(args: Arguments, plan: MachinePlan) -> None:
    wait = plan.boot_menu_s * 1000 if plan.boot_menu_s else None
    args.keyval("boot", menu=bool(wait), splash_time=wait, strict=True)
    if plan.kernel is None:
        return
    args.text("kernel", str(plan.kernel.kernel))
    if plan.kernel.initrd is not None:
        args.text("initrd", str(plan.kernel.initrd))
    if plan.kernel.cmdline:
        args.text("append", plan.kernel.cmdline)


def _usb(board: Board, plan: MachinePlan, begun: Beginning) -> None:
    if not begun.usb:
        return
    add_controller(board.args, board.slots)
    if plan.display is not DisplayModel.NONE and plan.tablet:
        add_tablet(board.args)
    if plan.keyboard:
        add_keyboard(board.args)


def _disks(board: Board, plan: MachinePlan, begun: Beginning, order: Mapping[str, int]) -> None:
    args = board.args
    args.object("iothread", IOTHREAD)
    for bus in DiskBus:
        controllers = DISK_BUSES[bus].controllers
        if bus in begun.buses and controllers is not None:
            controllers(board)
    positions: Counter[DiskBus] = Counter()
    for disk in plan.disks:
        add_disk_nodes(args, disk)
        unit = disk_unit(disk, positions[disk.bus], order.get(disk.key))
        DISK_BUSES[disk.bus].unit(board, unit)
        positions[disk.bus] += 1
    for cdrom in plan.cdroms:
        if cdrom.path is not None:
            add_cdrom_nodes(args, cdrom)
        unit = cdrom_unit(cdrom, positions[cdrom.bus], order.get(cdrom.key))
        DISK_BUSES[cdrom.bus].unit(board, unit)
        positions[cdrom.bus] += 1


def _small_devices(board: Board, plan: MachinePlan) -> None:
    args, slots = board.args, board.slots
    add_panic(args, slots)
    if plan.agent_fd is not None:
        add_agent(args, slots, plan.agent_fd)
    if plan.rng:
        add_rng(args, slots)
    if plan.memory.balloon:
        add_balloon(args, slots, gives_back=plan.huge_pages is HugePages.NONE)
    if plan.watchdog is not None:
        add_watchdog(args, slots, plan.watchdog)
    if plan.vsock is not None:
        add_vsock(args, slots, plan.vsock)
    if plan.tpm_fd is not None:
        add_tpm(args, plan.tpm_fd)


def _boot_order(plan: MachinePlan) -> dict[str, int]:
    """Each device's place in the boot order, counted from 1: those with an index of their own
    first, then the classes; what is in neither is left out."""
    classes: dict[BootDevice, tuple[DiskPlan | CdromPlan | NicPlan, ...]] = {
        BootDevice.DISK: plan.disks,
        BootDevice.CDROM: plan.cdroms,
        BootDevice.NETWORK: plan.nics,
    }
    everything = [device for devices in classes.values() for device in devices]
    first = [device for device in everything if device.boot_index is not None]
    first.sort(key=lambda device: device.boot_index or 0)
    keys = [device.key for device in first]
    keys += [device.key for kind in plan.boot_order for device in classes[kind]]
    return {key: place for place, key in enumerate(dict.fromkeys(keys), 1)}
