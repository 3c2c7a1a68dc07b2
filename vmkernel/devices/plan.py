"""A virtual machine with every reference resolved: what the device modules and QEMU's command
line are made from. Plain data.

`of` makes a device's plan from its spec, for a start and for hot-plug alike. It takes the fields of
the spec by name, all of them: a new one that nothing is done with is a TypeError in every test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from msgspec.structs import asdict

from vmkernel.devices.defaults import disk_bus_of, nic_model_of
from vmkernel.model import (
    CdromSpec,
    DiskBus,
    DiskCache,
    DiskLimits,
    DiskSpec,
    NicModel,
    NicSpec,
    VmSpec,
    VolumeFormat,
)

__all__ = [
    "Accelerator",
    "Aio",
    "CdromPlan",
    "DiskFile",
    "DiskLayer",
    "DiskPlan",
    "Family",
    "FirmwarePlan",
    "KernelPlan",
    "LayerFile",
    "MachinePlan",
    "NicPlan",
    "SerialPlan",
    "TapBackend",
    "UserBackend",
    "number_of",
]


_SERIAL_MAX = 20
"""Of IDE and SATA; the other buses take longer ones."""


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
    """A file of a disk's backing chain; only read."""

    path: Path
    format: VolumeFormat


class LayerFile(Protocol):
    """A file that a disk is made of, as the storage knows it."""

    @property
    def path(self) -> Path:
        """Its path."""
        ...

    @property
    def format(self) -> VolumeFormat:
        """Its recorded format, never a detected one."""
        ...


class DiskFile(LayerFile, Protocol):
    """A volume's own file."""

    @property
    def id(self) -> str:
        """The volume's id."""
        ...

    @property
    def backing(self) -> Sequence[LayerFile]:
        """Its backing chain, from the top down."""
        ...


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
    """True if the host's page cache is bypassed."""
    backing: tuple[DiskLayer, ...] = ()
    """Its backing chain, from the top down."""
    flushes: bool = True
    """False if the guest's flushes are ignored."""
    write_cache: bool = True
    """False if each write is durable when it is answered."""
    discard: bool = True
    read_only: bool = False
    limits: DiskLimits | None = None
    boot_index: int | None = None

    @classmethod
    def of(cls, spec: VmSpec, disk: DiskSpec, file: DiskFile) -> DiskPlan:
        """A disk of the spec on its volume. Which way to the file is the best one is not known
        without asking the file system, so it is one that always works."""
        return cls._of(disk_bus_of(spec, disk), file, **asdict(disk))

    @classmethod
    def _of(
        cls,
        on: DiskBus,
        file: DiskFile,
        *,
        volume: str,
        key: str | None,
        bus: DiskBus | None,
        boot_index: int | None,
        cache: DiskCache,
        discard: bool,
        read_only: bool,
        limits: DiskLimits | None,
    ) -> DiskPlan:
        del volume, bus  # `file` and `on`
        return cls(
            key=key or "",
            bus=on,
            path=file.path,
            format=file.format,
            backing=tuple(DiskLayer(layer.path, layer.format) for layer in file.backing),
            serial=_serial(file.id),
            aio=Aio.THREADS,
            direct=cache is DiskCache.NONE,
            flushes=cache is not DiskCache.UNSAFE,
            write_cache=cache is not DiskCache.WRITETHROUGH,
            discard=discard,
            read_only=read_only,
            limits=limits,
            boot_index=boot_index,
        )


def _serial(volume: str) -> str:
    """What the guest reads as the disk's serial number: the volume's id, or a digest of a long
    one."""
    if len(volume) <= _SERIAL_MAX:
        return volume
    return hashlib.sha256(volume.encode()).hexdigest()[:_SERIAL_MAX]


@dataclass(frozen=True)
class CdromPlan:
    """One CD-ROM drive; empty if `path` is None."""

    key: str
    """`cdrom<N>`."""
    bus: DiskBus
    path: Path | None
    boot_index: int | None = None

    @classmethod
    def of(cls, cdrom: CdromSpec, path: Path | None) -> CdromPlan:
        """A drive of a spec, with its image at a path."""
        return cls._of(path, **asdict(cdrom))

    @classmethod
    def _of(
        cls,
        path: Path | None,
        *,
        image: str | None,
        key: str | None,
        bus: DiskBus,
        boot_index: int | None,
    ) -> CdromPlan:
        del image  # `path`
        return cls(key=key or "", bus=bus, path=path, boot_index=boot_index)


@dataclass(frozen=True)
class TapBackend:
    """A tap that was opened for QEMU, by the number that the descriptor has there (or the name
    that it was given by QMP)."""

    fd: int | str
    vhost_fd: int | str | None
    name: str


@dataclass(frozen=True)
class UserBackend:
    """QEMU's user-mode network: the guest can connect out, but can't be reached."""


@dataclass(frozen=True)
class NicPlan:
    key: str
    """`nic<N>`."""
    model: NicModel
    mac: str
    backend: TapBackend | UserBackend
    boot_index: int | None = None

    @classmethod
    def of(cls, spec: VmSpec, nic: NicSpec, backend: TapBackend | UserBackend) -> NicPlan:
        """A card of the spec on its open port."""
        return cls._of(nic_model_of(spec, nic), backend, **asdict(nic))

    @classmethod
    def _of(
        cls,
        kind: NicModel,
        backend: TapBackend | UserBackend,
        *,
        port_group: str,
        key: str | None,
        model: NicModel | None,
        mac: str | None,
        connected: bool,
        boot_index: int | None,
    ) -> NicPlan:
        del port_group, model  # `backend` and `kind`
        del connected  # a setting (nic.py)
        assert mac is not None, "the inventory gives every card one"
        return cls(key=key or "", model=kind, mac=mac, backend=backend, boot_index=boot_index)


@dataclass(frozen=True)
class FirmwarePlan:
    """UEFI: code that is shared and read-only, variables that are the VM's own."""

    code: Path
    variables: Path
    secure: bool = False
    """True if only the firmware, in system management mode, may write the variables."""


@dataclass(frozen=True)
class KernelPlan:
    kernel: Path
    initrd: Path | None
    cmdline: str


@dataclass(frozen=True)
class SerialPlan:
    """A serial line: a listening socket and, if QEMU has hubs, a scrollback in QEMU."""

    fd: int
    scrollback_bytes: int
    """A power of two; 0 if QEMU is older than 10 and has no `hub` character device."""


@dataclass(frozen=True)
class BootTopology:
    """What of a machine no plugging in and out changes: the ports, controllers and memory that it
    was first started with. A memory image fits a machine with the same ones alone.
    """

    started: VmSpec
    """The complete spec of its first start; perhaps without fields that only the host uses."""
    pci_disks: tuple[int, ...]
    """The numbers of the disks that were PCI devices of their own."""
    express_nics: tuple[int, ...]
    """The numbers of the cards that hung on ports."""
    units: tuple[tuple[DiskBus, str], ...]
    """Bus and key of each disk, then of each CD-ROM drive, in their order: on IDE, SATA and USB
    they are counted, as are PCI disks on pc."""
    usb: bool
    """True if there was a USB controller."""
    dimms: tuple[tuple[int, int], ...] = ()
    """Number and bytes of each DIMM that was added since."""
    other_disks: tuple[int, ...] = ()
    """The numbers of the disks that need no port."""
    other_nics: tuple[int, ...] = ()
    usb_units: tuple[tuple[str, int], ...] = ()
    """Key and place of each disk and CD-ROM drive on USB when the memory was saved: drives removed
    since the first start left gaps."""

    @property
    def dimm_bytes(self) -> int:
        """The total size of the DIMMs."""
        return sum(size_bytes for _, size_bytes in self.dimms)

    @property
    def buses(self) -> frozenset[DiskBus]:
        """Those in use; their controllers are there."""
        return frozenset(bus for bus, _ in self.units)

    def position(self, bus: DiskBus, key: str, others: int) -> int:
        """The place of a unit on its bus, counted from 0: units plugged in while the machine ran,
        `others` of them before this one, come after those that it started with. Changing the order
        of a list doesn't move a unit.
        """
        sealed = dict(self.usb_units) if bus is DiskBus.USB else {}
        if key in sealed:
            return sealed[key]
        keys = [known for where, known in self.units if where is bus]
        return keys.index(key) if key in keys else len(keys) + others


@dataclass(frozen=True)
class MachinePlan:
    """Everything that QEMU needs: the spec, and what it names, found and opened."""

    vm_id: str
    uuid: str
    machine_type: str
    accelerator: Accelerator
    spec: VmSpec
    """Complete, and as the machine starts: with a memory image, its processors and memory are those
    of its first start, without those added since. Files, taps and descriptors for the spec are in
    the other fields."""
    firmware: FirmwarePlan | None
    """None for BIOS."""
    disks: tuple[DiskPlan, ...]
    cdroms: tuple[CdromPlan, ...]
    """With the drive of cloud-init's seed."""
    nics: tuple[NicPlan, ...]
    kernel: KernelPlan | None
    qmp_fd: int
    kvm_fd: int | None
    """An open /dev/kvm for a QEMU that sees no devices; None if it opens it itself."""
    serial: tuple[SerialPlan, ...]
    agent_fd: int | None
    rtc_base: str = "utc"
    """What the clock starts with: `utc`, or a local time such as `2026-11-23T10:00:00`."""
    vsock_fd: int | None = None
    """An open /dev/vhost-vsock."""
    tpm_fd: int | None = None
    """A connected socket whose other end is the TPM's emulator."""
    incoming: bool = False
    """True if a memory image is loaded before it runs."""
    topology: BootTopology | None = None
    """Of an incoming machine."""

    @property
    def family(self) -> Family:
        """The chipset."""
        return Family.of(self.machine_type)
