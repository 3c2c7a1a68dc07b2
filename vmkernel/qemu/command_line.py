"""The command line of one virtual machine, from its plan; a pure function.

Nothing is left to QEMU's defaults that a later version might change or that would open a door: no
default devices, no user configuration, every image format explicit, the seccomp sandbox on, no
listening socket opened by QEMU. Sockets are passed as descriptors that the vmkernel bound, so that
a VM needs no writable folder.
"""

from __future__ import annotations

from vmkernel.devices import Accelerator, Arguments, Family, FirmwarePlan, MachinePlan
from vmkernel.devices.boot_order import boot_places
from vmkernel.devices.device import Board
from vmkernel.devices.memory import MEMORY, MEMORY_DEVICE
from vmkernel.devices.processors import PROCESSORS
from vmkernel.devices.registry import PLUGGED
from vmkernel.devices.slots import Slots
from vmkernel.devices.topology import topology_of
from vmkernel.devices.watchdog import action_word

__all__ = ["TCG_CACHE_BYTES", "build_arguments"]

TCG_CACHE_BYTES = 256 << 20
"""The translated code that TCG may keep; the memory limit of a VM includes it."""

_KVM_FDSET = 1
_MIB = 1 << 20


def build_arguments(plan: MachinePlan) -> list[str]:
    """The arguments, without the program's name."""
    args = Arguments()
    topology = plan.topology or topology_of(plan.spec)
    board = Board(args, Slots(plan.family, args), plan.family, topology, boot_places(plan))
    _process(args, plan)
    MEMORY_DEVICE.add(board, plan)
    _machine(args, plan)
    PROCESSORS.add(board, plan)
    _control(args, plan)
    _boot(args, plan)
    board.slots.begin(topology, plan.spec.hot_plug)
    for device in PLUGGED:
        device.add(board, plan)
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
    args.keyval(
        "action",
        reboot="reset",
        shutdown="poweroff",
        panic="none",
        watchdog=action_word(plan.spec),
    )


def _boot(args: Arguments, plan: MachinePlan) -> None:
    menu_s = plan.spec.boot.menu_s
    wait = menu_s * 1000 if menu_s else None
    args.keyval("boot", menu=bool(wait), splash_time=wait, strict=True)
    if plan.kernel is None:
        return
    args.text("kernel", str(plan.kernel.kernel))
    if plan.kernel.initrd is not None:
        args.text("initrd", str(plan.kernel.initrd))
    if plan.kernel.cmdline:
        args.text("append", plan.kernel.cmdline)
