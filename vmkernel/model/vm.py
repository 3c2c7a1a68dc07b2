"""Virtual machines: what is wanted (spec) and what is observed (status)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record, Slug, Timestamp

__all__ = [
    "BootDevice",
    "BootSpec",
    "CdromSpec",
    "ConsoleKind",
    "CpuSpec",
    "DiskBus",
    "DiskSpec",
    "DisplayModel",
    "Firmware",
    "KernelBoot",
    "NicModel",
    "NicSpec",
    "NicStatus",
    "Vm",
    "VmAction",
    "VmSpec",
    "VmState",
    "VmStatus",
]

MEMORY_STEP_BYTES = 1 << 20
MacAddress = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$(?!\n)",
        description="A unicast MAC address, lower case, colon separated.",
    ),
]
LabelKey = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$(?!\n)")
]


class Firmware(StrEnum):
    """What the guest's machine starts with."""

    UEFI = "uefi"
    BIOS = "bios"


class DiskBus(StrEnum):
    """The controller that a disk or CD-ROM hangs on."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    NVME = "nvme"
    SATA = "sata"
    IDE = "ide"
    USB = "usb"


class NicModel(StrEnum):
    """The network card that the guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    VMXNET3 = "vmxnet3"
    RTL8139 = "rtl8139"


class DisplayModel(StrEnum):
    """The graphics card that the guest sees."""

    VIRTIO = "virtio"
    STD = "std"
    NONE = "none"


class BootDevice(StrEnum):
    """A class of devices in the boot order."""

    DISK = "disk"
    CDROM = "cdrom"
    NETWORK = "network"


class CpuSpec(Record, frozen=True, kw_only=True):
    """Virtual processors."""

    count: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    model: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)")] = "host"
    """`host`, or a QEMU CPU model name such as `EPYC-v4`."""


class DiskSpec(Record, frozen=True, kw_only=True):
    """A volume attached as a disk."""

    volume: Slug
    bus: DiskBus = DiskBus.VIRTIO_BLK


class CdromSpec(Record, frozen=True, kw_only=True):
    """A CD-ROM drive, with an ISO image in it or empty."""

    image: Slug | None = None
    bus: DiskBus = DiskBus.SATA


class NicSpec(Record, frozen=True, kw_only=True):
    """A network card on a port group. A MAC address is drawn at creation where none is given."""

    port_group: Slug = "vm-network"
    model: NicModel = NicModel.VIRTIO
    mac: MacAddress | None = None


class KernelBoot(Record, frozen=True, kw_only=True):
    """Direct boot of a Linux kernel, without a boot loader."""

    kernel: Slug
    initrd: Slug | None = None
    cmdline: Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^[ -~]*$(?!\n)")] = ""


class BootSpec(Record, frozen=True, kw_only=True):
    """What the guest boots: classes of devices in order, or a kernel directly."""

    order: tuple[BootDevice, ...] = (BootDevice.DISK, BootDevice.CDROM)
    kernel: KernelBoot | None = None


class VmSpec(Record, frozen=True, kw_only=True):
    """What a virtual machine is wanted to be."""

    datastore: Slug
    """Where the VM's folder lies; fixed at creation."""
    name: Annotated[str, msgspec.Meta(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")] = ""
    """A free display name; the id is shown where it is empty."""
    description: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    labels: dict[LabelKey, Annotated[str, msgspec.Meta(max_length=256)]] = {}
    cpus: CpuSpec = CpuSpec()
    memory_bytes: Annotated[
        int, msgspec.Meta(ge=16 << 20, le=16 << 40, multiple_of=MEMORY_STEP_BYTES)
    ] = 512 << 20
    firmware: Firmware = Firmware.UEFI
    disks: Annotated[tuple[DiskSpec, ...], msgspec.Meta(max_length=64)] = ()
    cdroms: Annotated[tuple[CdromSpec, ...], msgspec.Meta(max_length=8)] = ()
    nics: Annotated[tuple[NicSpec, ...], msgspec.Meta(max_length=16)] = ()
    boot: BootSpec = BootSpec()
    display: DisplayModel = DisplayModel.STD


class VmState(StrEnum):
    """Where a virtual machine stands; the diagram is in vmkernel/vm/states.py."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    CRASHED = "crashed"
    UNUSABLE = "unusable"


class VmAction(StrEnum):
    """A request that changes a VM's state."""

    START = "start"
    SHUTDOWN = "shutdown"
    POWER_OFF = "power-off"
    RESET = "reset"


class ConsoleKind(StrEnum):
    """The stream that a console opens."""

    SERIAL = "serial"
    VNC = "vnc"


class NicStatus(Record, frozen=True, kw_only=True):
    """A network card as it runs."""

    mac: str
    port_group: str
    tap: str | None = None


class VmStatus(Record, frozen=True, kw_only=True):
    """What is observed of a virtual machine."""

    state: VmState
    uuid: str
    machine_type: str
    """QEMU machine type, pinned at creation, such as `pc-q35-10.0`."""
    reason: str | None = None
    """Why it is crashed or unusable, or why the last start failed."""
    started_at: Timestamp | None = None
    accelerator: str | None = None
    """`kvm` or `tcg` while it runs."""
    nics: tuple[NicStatus, ...] = ()


class Vm(Record, frozen=True, kw_only=True):
    """One virtual machine."""

    id: Slug
    revision: int
    """Counts the changes of the spec; the ETag of the API."""
    created_at: Timestamp
    spec: VmSpec
    status: VmStatus
