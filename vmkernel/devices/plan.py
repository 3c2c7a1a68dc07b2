"""A virtual machine with every reference resolved: what the device modules and QEMU's command
line are made from. Plain data; building it is the VM driver's work."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vmkernel.model import BootDevice, CpuSpec, DiskBus, DisplayModel, NicModel, VolumeFormat

__all__ = [
    "Accelerator",
    "Aio",
    "CdromPlan",
    "DiskPlan",
    "Family",
    "FirmwarePlan",
    "KernelPlan",
    "MachinePlan",
    "NicPlan",
    "SerialPlan",
    "TapBackend",
    "UserBackend",
]


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class Aio(StrEnum):
    """How QEMU reads and writes files."""

    IO_URING = "io_uring"
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
class DiskPlan:
    """One disk."""

    bus: DiskBus
    path: Path
    format: VolumeFormat
    serial: str
    aio: Aio
    direct: bool
    """True where the file system takes O_DIRECT: the host's page cache is then left out."""


@dataclass(frozen=True)
class CdromPlan:
    """One CD-ROM drive; empty where `path` is None."""

    bus: DiskBus
    path: Path | None


@dataclass(frozen=True)
class TapBackend:
    """A tap that was opened for QEMU, by the number that the descriptor has there."""

    fd: int
    vhost_fd: int | None
    name: str


@dataclass(frozen=True)
class UserBackend:
    """QEMU's own user-mode network: the guest reaches out, nobody reaches in."""


@dataclass(frozen=True)
class NicPlan:
    """One network card."""

    model: NicModel
    mac: str
    backend: TapBackend | UserBackend


@dataclass(frozen=True)
class FirmwarePlan:
    """UEFI: code that is shared and read-only, variables that are the VM's own."""

    code: Path
    variables: Path


@dataclass(frozen=True)
class KernelPlan:
    """Direct kernel boot."""

    kernel: Path
    initrd: Path | None
    cmdline: str


@dataclass(frozen=True)
class SerialPlan:
    """The first serial line: a listening socket and, where QEMU has hubs, a scrollback in QEMU."""

    fd: int
    scrollback_bytes: int
    """A power of two; 0 where QEMU is older than 10 and has no `hub` character device."""


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
    serial: SerialPlan
    agent_fd: int
    incoming: bool = False
    """True where its state will be loaded from a memory image before it runs."""

    @property
    def family(self) -> Family:
        """The chipset."""
        return Family.of(self.machine_type)
