"""A virtual machine with every reference resolved: what the device modules and QEMU's command
line are made from. Plain data; building it is the VM driver's work."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from vmkernel.model import (
    BootDevice,
    CpuSpec,
    DiskBus,
    DiskLimits,
    DisplayModel,
    HotPlugSpec,
    HugePages,
    MemorySpec,
    NicModel,
    VolumeFormat,
    WatchdogSpec,
)

__all__ = [
    "Accelerator",
    "Aio",
    "CdromPlan",
    "DiskLayer",
    "DiskPlan",
    "Family",
    "FirmwarePlan",
    "KernelPlan",
    "MachinePlan",
    "NicPlan",
    "SerialPlan",
    "TapBackend",
    "UserBackend",
    "VsockPlan",
    "number_of",
]


def number_of(key: str) -> int:
    """The number in `disk12`, `cdrom0`, `nic3`."""
    return int(key.lstrip("abcdefghijklmnopqrstuvwxyz"))


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class Aio(StrEnum):
    """How QEMU reads and writes files.

    Not by io_uring: its requests pass no seccomp filter, so a QEMU with one could make sockets of
    any family, vsock among them. Linux AIO reads and writes files and does nothing else; measured
    with qemu-img bench it gives 0.8 to 1.3 of io_uring's throughput, as do threads.
    """

    NATIVE = "native"
    """Linux AIO; past the page cache only."""
    THREADS = "threads"


class Family(StrEnum):
    """The chipset of a machine type."""

    Q35 = "q35"
    PC = "pc"

    @classmethod
    def of(cls, machine_type: str) -> Family:
        """The family of `pc-q35-10.0` or `pc-i440fx-10.0`."""
        return cls.Q35 if machine_type.startswith("pc-q35-") else cls.PC


@dataclass(frozen=True)
class DiskLayer:
    """A file that a disk's own file stands on; only read."""

    path: Path
    format: VolumeFormat


@dataclass(frozen=True)
class DiskPlan:
    """One disk."""

    key: str
    """`disk<N>`: names the device and its block node, and fixes its place."""
    bus: DiskBus
    path: Path
    format: VolumeFormat
    serial: str
    aio: Aio
    direct: bool
    """True where the host's page cache is left out."""
    backing: tuple[DiskLayer, ...] = ()
    """What the file stands on, from the upper to the lowest layer."""
    flushes: bool = True
    """False where the guest's flushes are ignored."""
    write_cache: bool = True
    """False where each write is durable when it is answered."""
    discard: bool = True
    read_only: bool = False
    limits: DiskLimits | None = None
    boot_index: int | None = None


@dataclass(frozen=True)
class CdromPlan:
    """One CD-ROM drive; empty where `path` is None."""

    key: str
    """`cdrom<N>`."""
    bus: DiskBus
    path: Path | None
    boot_index: int | None = None


@dataclass(frozen=True)
class TapBackend:
    """A tap that was opened for QEMU, by the number that the descriptor has there (or the name
    that it was given by QMP)."""

    fd: int | str
    vhost_fd: int | str | None
    name: str


@dataclass(frozen=True)
class UserBackend:
    """QEMU's own user-mode network: the guest reaches out, nobody reaches in."""


@dataclass(frozen=True)
class NicPlan:
    """One network card."""

    key: str
    """`nic<N>`."""
    model: NicModel
    mac: str
    backend: TapBackend | UserBackend
    boot_index: int | None = None


@dataclass(frozen=True)
class FirmwarePlan:
    """UEFI: code that is shared and read-only, variables that are the VM's own."""

    code: Path
    variables: Path
    secure: bool = False
    """True where only the firmware itself, in system management mode, may write the variables."""


@dataclass(frozen=True)
class KernelPlan:
    """Direct kernel boot."""

    kernel: Path
    initrd: Path | None
    cmdline: str


@dataclass(frozen=True)
class SerialPlan:
    """A serial line: a listening socket and, where QEMU has hubs, a scrollback in QEMU."""

    fd: int
    scrollback_bytes: int
    """A power of two; 0 where QEMU is older than 10 and has no `hub` character device."""


@dataclass(frozen=True)
class VsockPlan:
    """A vsock device, on an open /dev/vhost-vsock."""

    cid: int
    fd: int


@dataclass(frozen=True)
class Beginning:
    """What a machine was first started with, where that isn't what it has now.

    A memory image fits a machine with the same ports, controllers and memory alone: what was
    plugged in or out while the guest ran changed none of them.
    """

    pci_disks: tuple[int, ...]
    """The numbers of the disks that were PCI devices of their own."""
    express_nics: tuple[int, ...]
    """The numbers of the cards that hung on ports."""
    buses: frozenset[DiskBus]
    usb: bool
    """True where there was a USB controller."""
    dimms: tuple[tuple[int, int], ...] = ()
    """Number and bytes of each DIMM that was added since."""
    other_disks: tuple[int, ...] = ()
    """The numbers of the disks that need no port."""
    other_nics: tuple[int, ...] = ()


@dataclass(frozen=True)
class MachinePlan:
    """Everything QEMU needs to know."""

    vm_id: str
    uuid: str
    machine_type: str
    accelerator: Accelerator
    cpus: CpuSpec
    memory_bytes: int
    firmware: FirmwarePlan | None
    """None for BIOS."""
    disks: tuple[DiskPlan, ...]
    cdroms: tuple[CdromPlan, ...]
    nics: tuple[NicPlan, ...]
    display: DisplayModel
    boot_order: tuple[BootDevice, ...]
    kernel: KernelPlan | None
    qmp_fd: int
    kvm_fd: int | None
    """An open /dev/kvm for a QEMU that sees no devices; None where it opens it itself."""
    serial: tuple[SerialPlan, ...]
    agent_fd: int | None
    memory: MemorySpec = field(default_factory=MemorySpec)
    rtc_base: str = "utc"
    """What the clock starts with: `utc`, or a local time such as `2026-11-23T10:00:00`."""
    boot_menu_s: int = 0
    hot_plug: HotPlugSpec = field(default_factory=HotPlugSpec)
    hyperv: bool = False
    """Hyper-V's interfaces, which make Windows run well; KVM only."""
    tablet: bool = True
    keyboard: bool = False
    rng: bool = True
    watchdog: WatchdogSpec | None = None
    vsock: VsockPlan | None = None
    tpm_fd: int | None = None
    """A connected socket whose other end is the TPM's emulator."""
    incoming: bool = False
    """True where its state will be loaded from a memory image before it runs."""
    beginning: Beginning | None = None
    """For an incoming one; `memory_bytes` is then without the DIMMs."""

    @property
    def family(self) -> Family:
        """The chipset."""
        return Family.of(self.machine_type)

    @property
    def huge_pages(self) -> HugePages:
        """The pages that the memory is made of."""
        return self.memory.huge_pages
