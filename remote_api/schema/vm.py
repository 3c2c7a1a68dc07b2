"""Virtual machines: what is wanted (spec) and what is observed (status)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Slug, Timestamp, WireModel

__all__ = [
    "BootDevice",
    "BootSpec",
    "CdromSpec",
    "ConsoleBody",
    "ConsoleKind",
    "ConsoleQuery",
    "ConsoleTicket",
    "CpuSpec",
    "DeleteVmQuery",
    "DiskBus",
    "DiskSpec",
    "DisplayModel",
    "Firmware",
    "KernelBoot",
    "NicModel",
    "NicSpec",
    "NicStatus",
    "ShutdownQuery",
    "Vm",
    "VmBody",
    "VmPage",
    "VmSpec",
    "VmState",
    "VmStatus",
]

MacAddress = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$(?!\n)",
        description="A unicast MAC address, lower case, colon separated.",
        examples=["52:54:00:12:34:56"],
    ),
]
LabelKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$(?!\n)")]


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


class CpuSpec(WireModel, frozen=True, kw_only=True):
    """Virtual processors."""

    count: Annotated[int, Meta(ge=1, le=256)] = 1
    model: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
            description="`host`, or a CPU model of QEMU's, such as `EPYC-v4`.",
        ),
    ] = "host"


class DiskSpec(WireModel, frozen=True, kw_only=True):
    """A volume attached as a disk."""

    volume: Slug
    bus: DiskBus = DiskBus.VIRTIO_BLK


class CdromSpec(WireModel, frozen=True, kw_only=True):
    """A CD-ROM drive, with an ISO image in it or empty."""

    image: Slug | None = None
    bus: DiskBus = DiskBus.SATA


class NicSpec(WireModel, frozen=True, kw_only=True):
    """A network card on a port group."""

    port_group: Slug = "vm-network"
    model: NicModel = NicModel.VIRTIO
    mac: Annotated[
        MacAddress | None, Meta(description="Drawn at creation where none is given.")
    ] = None


class KernelBoot(WireModel, frozen=True, kw_only=True):
    """Direct boot of a Linux kernel, without a boot loader."""

    kernel: Annotated[Slug, Meta(description="An image of the format `linux-kernel`.")]
    initrd: Annotated[Slug | None, Meta(description="An image of the format `linux-initrd`.")] = (
        None
    )
    cmdline: Annotated[
        str, Meta(max_length=2048, pattern=r"^[ -~]*$(?!\n)", description="Printable ASCII.")
    ] = ""


class BootSpec(WireModel, frozen=True, kw_only=True):
    """What the guest boots: classes of devices in order, or a kernel directly."""

    order: tuple[BootDevice, ...] = (BootDevice.DISK, BootDevice.CDROM)
    kernel: KernelBoot | None = None


class VmSpec(WireModel, frozen=True, kw_only=True):
    """What a virtual machine is wanted to be."""

    datastore: Annotated[Slug, Meta(description="Where its folder lies; fixed at creation.")]
    name: Annotated[
        str,
        Meta(
            max_length=80,
            pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)",
            description="A free display name; the id is shown where it is empty.",
        ),
    ] = ""
    description: Annotated[str, Meta(max_length=4096)] = ""
    labels: dict[LabelKey, Annotated[str, Meta(max_length=256)]] = {}
    cpus: CpuSpec = CpuSpec()
    memory_bytes: Annotated[
        int,
        Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20, description="Whole mebibytes."),
    ] = 512 << 20
    firmware: Firmware = Firmware.UEFI
    disks: Annotated[tuple[DiskSpec, ...], Meta(max_length=64)] = ()
    cdroms: Annotated[tuple[CdromSpec, ...], Meta(max_length=8)] = ()
    nics: Annotated[tuple[NicSpec, ...], Meta(max_length=16)] = ()
    boot: BootSpec = BootSpec()
    display: DisplayModel = DisplayModel.STD


class VmBody(WireModel, frozen=True, kw_only=True):
    """A virtual machine to make, or the whole of what it shall be from now on."""

    spec: VmSpec


class VmState(StrEnum):
    """Where a virtual machine stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    CRASHED = "crashed"
    UNUSABLE = "unusable"


class NicStatus(WireModel, frozen=True, kw_only=True):
    """A network card as it runs."""

    mac: str
    port_group: str
    tap: str | None = None


class VmStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a virtual machine."""

    state: VmState
    uuid: str
    machine_type: Annotated[
        str, Meta(description="QEMU's machine type, pinned at creation, such as `pc-q35-10.0`.")
    ]
    reason: Annotated[
        str | None, Meta(description="Why it is crashed or unusable, or the last start failed.")
    ] = None
    started_at: Timestamp | None = None
    accelerator: Annotated[str | None, Meta(description="`kvm` or `tcg`, while it runs.")] = None
    nics: tuple[NicStatus, ...] = ()


class Vm(WireModel, frozen=True, kw_only=True):
    """One virtual machine."""

    id: Slug
    revision: Annotated[int, Meta(description="Counts the changes of the spec; the ETag.")]
    created_at: Timestamp
    spec: VmSpec
    status: VmStatus


class VmPage(WireModel, frozen=True, kw_only=True):
    """A part of the virtual machines."""

    items: tuple[Vm, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class DeleteVmQuery(WireModel, frozen=True, kw_only=True):
    """What goes with the VM."""

    with_volumes: Annotated[
        bool, Meta(description="Delete the volumes that its spec names as well.")
    ] = False


class ShutdownQuery(WireModel, frozen=True, kw_only=True):
    """How long a shutdown may take."""

    wait: Annotated[
        float, Meta(ge=0, le=300, description="Seconds to wait for the work to finish.")
    ] = 0.0
    timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Seconds until the operation fails; the guest is not forced.",
        ),
    ] = 120.0


class ConsoleKind(StrEnum):
    """The stream that a console opens."""

    SERIAL = "serial"
    VNC = "vnc"


class ConsoleBody(WireModel, frozen=True, kw_only=True):
    """The console that is wanted."""

    kind: ConsoleKind = ConsoleKind.SERIAL


class ConsoleTicket(WireModel, frozen=True, kw_only=True):
    """The right to open one console, once."""

    ticket: Annotated[str, Meta(description="For the query parameter `ticket`; single use.")]
    websocket: Annotated[
        str, Meta(description="The path and query to open on this host by WebSocket.")
    ]
    expires_at: Timestamp

    def __repr__(self) -> str:
        """Without the ticket."""
        return f"ConsoleTicket(expires_at={self.expires_at!r})"


class ConsoleQuery(WireModel, frozen=True, kw_only=True):
    """What opens a console's WebSocket."""

    ticket: Annotated[str, Meta(min_length=1, max_length=128, description="The ticket.")]
