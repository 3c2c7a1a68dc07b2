"""The virtual hardware of a VM, as wanted."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vmkernel.model.base import OpenEnum, Record, Slug

__all__ = [
    "BootDevice",
    "BootSpec",
    "CdromSpec",
    "Clock",
    "ClockSpec",
    "CpuSpec",
    "DiskBus",
    "DiskCache",
    "DiskLimits",
    "DiskSpec",
    "DisplayModel",
    "Firmware",
    "GuestOs",
    "HotPlugSpec",
    "HugePages",
    "KernelBoot",
    "MemorySpec",
    "NicModel",
    "NicSpec",
    "Rate",
    "VsockSpec",
    "WatchdogAction",
    "WatchdogModel",
    "WatchdogSpec",
]

MAC_PATTERN = (
    r"^([0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
    r"|[0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2}|[0-9A-Fa-f]{12})$(?!\n)"
)
MacAddress = Annotated[
    str,
    Meta(
        pattern=MAC_PATTERN,
        description=(
            "A unicast MAC address of twelve hex digits. Upper case, and `-`, `.` or nothing"
            " between the digits, are accepted; it is stored in lower case with colons. Reserved"
            " addresses are refused: groups, zeros, those of virtual routers, those that begin with"
            " fe, and the host's own."
        ),
        examples=["52:54:00:12:34:56"],
    ),
]
BootIndex = Annotated[
    int,
    Meta(
        ge=1,
        le=1000,
        description="Its place in the boot order, before all devices that have none.",
    ),
]


class GuestOs(OpenEnum):
    """The kind of operating system; it selects defaults for fields that are omitted."""

    LINUX = "linux"
    WINDOWS = "windows"
    OTHER = "other"


class Firmware(OpenEnum):
    """The firmware of the guest's machine."""

    UEFI = "uefi"
    UEFI_SECURE_BOOT = "uefi-secure-boot"
    BIOS = "bios"


class Clock(OpenEnum):
    """What the guest's hardware clock shows."""

    UTC = "utc"
    LOCAL = "local"


class HugePages(OpenEnum):
    """The kind of host pages that hold the guest's memory."""

    NONE = "none"
    SIZE_2M = "2M"
    SIZE_1G = "1G"


class DiskBus(OpenEnum):
    """The controller of a disk or CD-ROM drive."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    NVME = "nvme"
    SATA = "sata"
    IDE = "ide"
    USB = "usb"


class DiskCache(OpenEnum):
    """How the host caches a disk's data."""

    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    UNSAFE = "unsafe"


class NicModel(OpenEnum):
    """The model of NIC that the guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    VMXNET3 = "vmxnet3"
    RTL8139 = "rtl8139"


class DisplayModel(OpenEnum):
    """The graphics card that the guest sees."""

    VIRTIO = "virtio"
    STD = "std"
    NONE = "none"


class WatchdogModel(OpenEnum):
    """The watchdog that the guest sees."""

    I6300ESB = "i6300esb"
    ITCO = "itco"


class WatchdogAction(OpenEnum):
    """What happens if the guest doesn't feed its watchdog in time; `power-off` counts as a crash
    for the restart policy.
    """

    RESET = "reset"
    POWER_OFF = "power-off"
    """Power off; counts as a crash for the restart policy."""
    PAUSE = "pause"
    INJECT_NMI = "inject-nmi"
    NONE = "none"


class BootDevice(OpenEnum):
    """A class of devices in the boot order."""

    DISK = "disk"
    CDROM = "cdrom"
    NETWORK = "network"


class CpuSpec(Record, frozen=True, kw_only=True):
    """vCPUs."""

    count: Annotated[int, Meta(ge=1, le=256)] = 1
    """vCPUs that the guest starts with."""
    max_count: Annotated[int, Meta(ge=1, le=256)] | None = None
    """The largest number of vCPUs after adding some while the VM runs; `count` if null."""
    sockets: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Sockets times cores times threads is the largest number of vCPUs; null fields are chosen."""
    cores: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Cores per socket."""
    threads: Annotated[int, Meta(ge=1, le=2)] | None = None
    """Threads per core."""
    model: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
            description="`host`, or a CPU model of QEMU's, such as `EPYC-v4`.",
        ),
    ] = "host"
    """`host`, or a CPU model of QEMU, such as `EPYC-v4`."""


class ClockSpec(Record, frozen=True, kw_only=True):
    """The guest's hardware clock."""

    base: Clock | None = None
    """If null: `utc`, or `local` for Windows."""
    utc_offset_minutes: Annotated[int, Meta(ge=-720, le=840)] | None = None
    """How far local time is ahead of UTC; the host's time zone if null."""


class HotPlugSpec(Record, frozen=True, kw_only=True):
    """Spare PCI ports of a q35 machine for hot-plug. The firmware scans each one, so fewer ports
    make the guest boot faster.
    """

    disks: Annotated[int, Meta(ge=0, le=32)] = 4
    """For virtio-blk and NVMe disks; other buses need none."""
    nics: Annotated[int, Meta(ge=0, le=8)] = 2
    """For NICs."""


class MemorySpec(Record, frozen=True, kw_only=True):
    """How the guest's memory is provided, and how it can change while the VM runs."""

    max_bytes: Annotated[int, Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20)] | None = None
    """The largest memory size after adding memory while the VM runs; if null, none can be added."""
    huge_pages: HugePages = HugePages.NONE
    """Use huge pages instead of ordinary ones; all are reserved at the start."""
    balloon: bool = True
    """A balloon device: returns unused memory to the host, reports the guest's own values, and
    reclaims memory on request."""
    target_bytes: Annotated[int, Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20)] | None = None
    """The memory that the balloon leaves to the guest; all of it if null."""


class Rate(Record, frozen=True, kw_only=True):
    """A rate limit, and how far and how long a burst may exceed it."""

    per_s: Annotated[int, Meta(ge=1, le=1 << 50)]
    """Operations or bytes per second."""
    burst_per_s: Annotated[int, Meta(ge=1, le=1 << 50)] | None = None
    """Operations or bytes per second during a burst."""
    burst_s: Annotated[int, Meta(ge=1, le=3600)] = 1
    """The longest burst, in seconds."""


class DiskLimits(Record, frozen=True, kw_only=True):
    """Limits of a disk's I/O: either one in total or one for each direction."""

    iops: Rate | None = None
    """All operations."""
    read_iops: Rate | None = None
    """Read operations."""
    write_iops: Rate | None = None
    """Write operations."""
    bytes: Rate | None = None
    """All bytes."""
    read_bytes: Rate | None = None
    """Bytes read."""
    write_bytes: Rate | None = None
    """Bytes written."""


class DiskSpec(Record, frozen=True, kw_only=True):
    """A volume attached as a disk."""

    volume: Slug
    key: (
        Annotated[
            str,
            Meta(
                pattern=r"^disk([0-9]|[1-5][0-9]|6[0-3])$(?!\n)", description="`disk0` to `disk63`."
            ),
        ]
        | None
    ) = None
    """Identifies the disk within its VM and fixes its slot in the guest; generated if null."""
    bus: DiskBus | None = None
    """If null: `virtio-blk`, or `sata` for Windows, which lacks a virtio driver."""
    boot_index: BootIndex | None = None
    cache: DiskCache = DiskCache.NONE
    """`none` bypasses the host's page cache if the datastore supports it; `unsafe` ignores flushes:
    data may be lost if the host fails."""
    discard: bool = True
    """Return blocks that the guest frees to the datastore."""
    read_only: bool = False
    """Refuse writes."""
    limits: DiskLimits | None = None


class CdromSpec(Record, frozen=True, kw_only=True):
    """A CD-ROM drive, with an ISO image or empty."""

    image: Slug | None = None
    key: (
        Annotated[str, Meta(pattern=r"^cdrom[0-7]$(?!\n)", description="`cdrom0` to `cdrom7`.")]
        | None
    ) = None
    """Identifies the drive within its VM and fixes its slot in the guest; generated if null."""
    bus: DiskBus = DiskBus.SATA
    boot_index: BootIndex | None = None


class NicSpec(Record, frozen=True, kw_only=True):
    """A NIC on a port group."""

    port_group: Slug = "vm-network"
    key: (
        Annotated[str, Meta(pattern=r"^nic([0-9]|1[0-5])$(?!\n)", description="`nic0` to `nic15`.")]
        | None
    ) = None
    """Identifies the NIC within its VM and fixes its slot in the guest; generated if null."""
    model: NicModel | None = None
    """If null: `virtio`, or `e1000e` for Windows, which lacks a virtio driver."""
    mac: MacAddress | None = None
    """Generated at creation if null."""
    connected: bool = True
    """False disconnects the virtual cable."""
    boot_index: BootIndex | None = None


class WatchdogSpec(Record, frozen=True, kw_only=True):
    """A device that acts if the guest stops feeding it."""

    model: WatchdogModel = WatchdogModel.I6300ESB
    """`itco` is part of the chipset of every machine without IDE."""
    action: WatchdogAction = WatchdogAction.RESET
    """An event is published in any case."""


class VsockSpec(Record, frozen=True, kw_only=True):
    """Sockets between guest and host without a network."""

    cid: Annotated[int, Meta(ge=3, le=(1 << 32) - 2)] | None = None
    """The guest's context ID, unique on its host; generated if null."""


class KernelBoot(Record, frozen=True, kw_only=True):
    """Boot a Linux kernel directly, without a boot loader."""

    kernel: Slug
    """An image of the format `linux-kernel`."""
    initrd: Slug | None = None
    """An image of the format `linux-initrd`."""
    cmdline: Annotated[
        str, Meta(max_length=2048, pattern=r"^[ -~]*$(?!\n)", description="Printable ASCII.")
    ] = ""
    """Printable ASCII."""


class BootSpec(Record, frozen=True, kw_only=True):
    """What the guest boots: devices with a `boot_index`, then device classes in `order`, or a
    kernel directly.
    """

    order: tuple[BootDevice, ...] = (BootDevice.DISK, BootDevice.CDROM)
    """The guest never boots from a device that isn't in this list and has no `boot_index`."""
    menu_s: Annotated[int, Meta(ge=0, le=60)] = 0
    """Seconds that the firmware waits for the key that opens its boot menu; 0 doesn't wait."""
    kernel: KernelBoot | None = None
