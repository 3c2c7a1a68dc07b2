"""What a virtual machine is made of: its virtual hardware, as it is wanted."""

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
    """The kind of operating system: chooses the defaults of what isn't given."""

    LINUX = "linux"
    WINDOWS = "windows"
    OTHER = "other"


class Firmware(OpenEnum):
    """What the guest's machine starts with."""

    UEFI = "uefi"
    UEFI_SECURE_BOOT = "uefi-secure-boot"
    BIOS = "bios"


class Clock(OpenEnum):
    """What the guest's hardware clock shows."""

    UTC = "utc"
    LOCAL = "local"


class HugePages(OpenEnum):
    """The pages of the host that hold the guest's memory."""

    NONE = "none"
    SIZE_2M = "2M"
    SIZE_1G = "1G"


class DiskBus(OpenEnum):
    """The controller that a disk or CD-ROM hangs on."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    NVME = "nvme"
    SATA = "sata"
    IDE = "ide"
    USB = "usb"


class DiskCache(OpenEnum):
    """How the host's memory is used between the guest and its disk."""

    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    UNSAFE = "unsafe"


class NicModel(OpenEnum):
    """The network card that the guest sees."""

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
    """What happens once the guest has not fed its watchdog in time; a power-off counts as a crash
    for the restart policy."""

    RESET = "reset"
    POWER_OFF = "power-off"
    """It counts as a crash for the restart policy."""
    PAUSE = "pause"
    INJECT_NMI = "inject-nmi"
    NONE = "none"


class BootDevice(OpenEnum):
    """A class of devices in the boot order."""

    DISK = "disk"
    CDROM = "cdrom"
    NETWORK = "network"


class CpuSpec(Record, frozen=True, kw_only=True):
    """Virtual processors."""

    count: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processors that the guest starts with."""
    max_count: Annotated[int, Meta(ge=1, le=256)] | None = None
    """The most that it may have after adding some while it runs; null: `count`."""
    sockets: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Sockets, cores and threads multiply to the most processors; what is null is chosen."""
    cores: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Cores of a socket."""
    threads: Annotated[int, Meta(ge=1, le=2)] | None = None
    """Threads of a core."""
    model: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
            description="`host`, or a CPU model of QEMU's, such as `EPYC-v4`.",
        ),
    ] = "host"
    """`host`, or a CPU model of QEMU's, such as `EPYC-v4`."""


class ClockSpec(Record, frozen=True, kw_only=True):
    """The guest's hardware clock."""

    base: Clock | None = None
    """If null: `utc`, or `local` for Windows, which expects that."""
    utc_offset_minutes: Annotated[int, Meta(ge=-720, le=840)] | None = None
    """How far local time is ahead of UTC; null: the host's own time zone."""


class HotPlugSpec(Record, frozen=True, kw_only=True):
    """Free PCI ports that a q35 machine starts with, for what is plugged in while it runs; the
    guest's firmware looks at each, so fewer let it start sooner."""

    disks: Annotated[int, Meta(ge=0, le=32)] = 4
    """For virtio-blk and NVMe disks; the other buses need none."""
    nics: Annotated[int, Meta(ge=0, le=8)] = 2
    """For network cards."""


class MemorySpec(Record, frozen=True, kw_only=True):
    """How the guest's memory is held, and what may become of it while it runs."""

    max_bytes: Annotated[int, Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20)] | None = None
    """The most that it may have after adding some while it runs; none can be added if null."""
    huge_pages: HugePages = HugePages.NONE
    """Pages from the host's pool instead of ordinary ones; all are taken at the start."""
    balloon: bool = True
    """A balloon: gives unused memory back, reports the guest's own figures, takes memory when
    asked."""
    target_bytes: Annotated[int, Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20)] | None = None
    """The memory that the balloon leaves to the guest; all if null."""


class Rate(Record, frozen=True, kw_only=True):
    """A limit, and how far and long it may be passed after a quiet time."""

    per_s: Annotated[int, Meta(ge=1, le=1 << 50)]
    """Operations or bytes a second."""
    burst_per_s: Annotated[int, Meta(ge=1, le=1 << 50)] | None = None
    """The same while a burst lasts."""
    burst_s: Annotated[int, Meta(ge=1, le=3600)] = 1
    """How long a burst may last, in seconds."""


class DiskLimits(Record, frozen=True, kw_only=True):
    """What a disk may take; either a limit for all or one for each direction."""

    iops: Rate | None = None
    """Operations."""
    read_iops: Rate | None = None
    """Operations that read."""
    write_iops: Rate | None = None
    """Operations that write."""
    bytes: Rate | None = None
    """Bytes."""
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
    """Names the disk within its VM and fixes its place in the guest; chosen if null."""
    bus: DiskBus | None = None
    """If null: `virtio-blk`, or `sata` for Windows, which has no driver for the other."""
    boot_index: BootIndex | None = None
    cache: DiskCache = DiskCache.NONE
    """`none` leaves the host's page cache out if the datastore can; `unsafe` ignores flushes:
    data may be lost with the host."""
    discard: bool = True
    """Blocks that the guest frees are given back to the datastore."""
    read_only: bool = False
    """Writes are refused."""
    limits: DiskLimits | None = None


class CdromSpec(Record, frozen=True, kw_only=True):
    """A CD-ROM drive, with an ISO image in it or empty."""

    image: Slug | None = None
    key: (
        Annotated[str, Meta(pattern=r"^cdrom[0-7]$(?!\n)", description="`cdrom0` to `cdrom7`.")]
        | None
    ) = None
    """Names the drive within its VM and fixes its place in the guest; chosen if null."""
    bus: DiskBus = DiskBus.SATA
    boot_index: BootIndex | None = None


class NicSpec(Record, frozen=True, kw_only=True):
    """A network card on a port group."""

    port_group: Slug = "vm-network"
    key: (
        Annotated[str, Meta(pattern=r"^nic([0-9]|1[0-5])$(?!\n)", description="`nic0` to `nic15`.")]
        | None
    ) = None
    """Names the card within its VM and fixes its place in the guest; chosen if null."""
    model: NicModel | None = None
    """If null: `virtio`, or `e1000e` for Windows, which has no driver for the other."""
    mac: MacAddress | None = None
    """Generated at creation if none is given."""
    connected: bool = True
    """False pulls the virtual cable."""
    boot_index: BootIndex | None = None


class WatchdogSpec(Record, frozen=True, kw_only=True):
    """A device that acts when the guest stops feeding it."""

    model: WatchdogModel = WatchdogModel.I6300ESB
    """`itco` is part of the chipset of every machine without IDE."""
    action: WatchdogAction = WatchdogAction.RESET
    """An event is published in any case."""


class VsockSpec(Record, frozen=True, kw_only=True):
    """A socket family between guest and host, without a network."""

    cid: Annotated[int, Meta(ge=3, le=(1 << 32) - 2)] | None = None
    """The guest's context id, unique on its host; generated if null."""


class KernelBoot(Record, frozen=True, kw_only=True):
    """Direct boot of a Linux kernel, without a boot loader."""

    kernel: Slug
    """An image of the format `linux-kernel`."""
    initrd: Slug | None = None
    """An image of the format `linux-initrd`."""
    cmdline: Annotated[
        str, Meta(max_length=2048, pattern=r"^[ -~]*$(?!\n)", description="Printable ASCII.")
    ] = ""
    """Printable ASCII."""


class BootSpec(Record, frozen=True, kw_only=True):
    """What the guest boots: devices with a `boot_index`, then classes in order, or a kernel
    directly."""

    order: tuple[BootDevice, ...] = (BootDevice.DISK, BootDevice.CDROM)
    """What isn't in it, and has no `boot_index`, is never booted from."""
    menu_s: Annotated[int, Meta(ge=0, le=60)] = 0
    """Seconds that the firmware waits for a key that opens its boot menu; 0 is no wait."""
    kernel: KernelBoot | None = None
