"""What a virtual machine is made of: its virtual hardware, as it is wanted."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Slug, WireEnum, WireModel

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


class GuestOs(WireEnum):
    """The kind of operating system: chooses the defaults of what isn't given."""

    LINUX = "linux"
    WINDOWS = "windows"
    OTHER = "other"


class Firmware(WireEnum):
    """What the guest's machine starts with."""

    UEFI = "uefi"
    UEFI_SECURE_BOOT = "uefi-secure-boot"
    BIOS = "bios"


class Clock(WireEnum):
    """What the guest's hardware clock shows."""

    UTC = "utc"
    LOCAL = "local"


class HugePages(WireEnum):
    """The pages of the host that hold the guest's memory."""

    NONE = "none"
    SIZE_2M = "2M"
    SIZE_1G = "1G"


class DiskBus(WireEnum):
    """The controller that a disk or CD-ROM hangs on."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    NVME = "nvme"
    SATA = "sata"
    IDE = "ide"
    USB = "usb"


class DiskCache(WireEnum):
    """How the host's memory is used between the guest and its disk."""

    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    UNSAFE = "unsafe"


class NicModel(WireEnum):
    """The network card that the guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    VMXNET3 = "vmxnet3"
    RTL8139 = "rtl8139"


class DisplayModel(WireEnum):
    """The graphics card that the guest sees."""

    VIRTIO = "virtio"
    STD = "std"
    NONE = "none"


class WatchdogModel(WireEnum):
    """The watchdog that the guest sees."""

    I6300ESB = "i6300esb"
    ITCO = "itco"


class WatchdogAction(WireEnum):
    """What happens once the guest has not fed its watchdog in time; a power-off counts as a crash
    for the restart policy."""

    RESET = "reset"
    POWER_OFF = "power-off"
    PAUSE = "pause"
    INJECT_NMI = "inject-nmi"
    NONE = "none"


class BootDevice(WireEnum):
    """A class of devices in the boot order."""

    DISK = "disk"
    CDROM = "cdrom"
    NETWORK = "network"


class CpuSpec(WireModel, frozen=True, kw_only=True):
    """Virtual processors."""

    count: Annotated[
        int, Meta(ge=1, le=256, description="Processors that the guest starts with.")
    ] = 1
    max_count: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Meta(
            description="The most that it may have after adding some while it runs; null: `count`."
        ),
    ] = None
    sockets: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Meta(
            description=(
                "Sockets, cores and threads multiply to the most processors; what is null "
                "is chosen."
            )
        ),
    ] = None
    cores: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, Meta(description="Cores of a socket.")
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=2)] | None, Meta(description="Threads of a core.")
    ] = None
    model: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
            description="`host`, or a CPU model of QEMU's, such as `EPYC-v4`.",
        ),
    ] = "host"


class ClockSpec(WireModel, frozen=True, kw_only=True):
    """The guest's hardware clock."""

    base: Annotated[
        Clock | None,
        Meta(description="Where null: `utc`, or `local` for Windows, which expects that."),
    ] = None
    utc_offset_minutes: Annotated[
        Annotated[int, Meta(ge=-720, le=840)] | None,
        Meta(description="How far local time is ahead of UTC; null: the host's own time zone."),
    ] = None


class HotPlugSpec(WireModel, frozen=True, kw_only=True):
    """Free PCI ports that a q35 machine starts with, for what is plugged in while it runs; the
    guest's firmware looks at each, so fewer let it start sooner."""

    disks: Annotated[
        int,
        Meta(
            ge=0,
            le=32,
            description="For virtio-blk and NVMe disks; the other buses need none.",
        ),
    ] = 4
    nics: Annotated[int, Meta(ge=0, le=8, description="For network cards.")] = 2


class MemorySpec(WireModel, frozen=True, kw_only=True):
    """How the guest's memory is held, and what may become of it while it runs."""

    max_bytes: Annotated[
        Annotated[int, Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20)] | None,
        Meta(
            description=(
                "The most that it may have after adding some while it runs; none can be "
                "added where null."
            )
        ),
    ] = None
    huge_pages: Annotated[
        HugePages,
        Meta(
            description=(
                "Pages from the host's pool instead of ordinary ones; all are taken at the start."
            )
        ),
    ] = HugePages.NONE
    balloon: Annotated[
        bool,
        Meta(
            description=(
                "A balloon: gives unused memory back, tells the guest's own figures, "
                "takes memory when asked."
            )
        ),
    ] = True
    target_bytes: Annotated[
        Annotated[int, Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20)] | None,
        Meta(description="What the balloon leaves to the guest; all where null."),
    ] = None


class Rate(WireModel, frozen=True, kw_only=True):
    """A limit, and how far and long it may be passed after a quiet time."""

    per_s: Annotated[int, Meta(ge=1, le=1 << 50, description="Operations or bytes a second.")]
    burst_per_s: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 50)] | None,
        Meta(description="The same while a burst lasts."),
    ] = None
    burst_s: Annotated[
        int, Meta(ge=1, le=3600, description="How long a burst may last, in seconds.")
    ] = 1


class DiskLimits(WireModel, frozen=True, kw_only=True):
    """What a disk may take; either a limit for all or one for each direction."""

    iops: Annotated[Rate | None, Meta(description="Operations.")] = None
    read_iops: Annotated[Rate | None, Meta(description="Operations that read.")] = None
    write_iops: Annotated[Rate | None, Meta(description="Operations that write.")] = None
    bytes: Annotated[Rate | None, Meta(description="Bytes.")] = None
    read_bytes: Annotated[Rate | None, Meta(description="Bytes read.")] = None
    write_bytes: Annotated[Rate | None, Meta(description="Bytes written.")] = None


class DiskSpec(WireModel, frozen=True, kw_only=True):
    """A volume attached as a disk."""

    volume: Slug
    key: Annotated[
        Annotated[str, Meta(pattern=r"^disk([0-9]|[1-5][0-9]|6[0-3])$(?!\n)")] | None,
        Meta(
            description=(
                "Names the disk within its VM and fixes its place in the guest; chosen where null."
            )
        ),
    ] = None
    bus: Annotated[
        DiskBus | None,
        Meta(
            description=(
                "Where null: `virtio-blk`, or `sata` for Windows, which has no driver for "
                "the other."
            )
        ),
    ] = None
    boot_index: BootIndex | None = None
    cache: Annotated[
        DiskCache,
        Meta(
            description=(
                "`none` leaves the host's page cache out, where the datastore can; "
                "`unsafe` ignores flushes: data may be lost with the host."
            )
        ),
    ] = DiskCache.NONE
    discard: Annotated[
        bool, Meta(description="Blocks that the guest frees are given back to the datastore.")
    ] = True
    read_only: Annotated[bool, Meta(description="Writes are refused.")] = False
    limits: DiskLimits | None = None


class CdromSpec(WireModel, frozen=True, kw_only=True):
    """A CD-ROM drive, with an ISO image in it or empty."""

    image: Slug | None = None
    key: Annotated[
        Annotated[str, Meta(pattern=r"^cdrom[0-7]$(?!\n)")] | None,
        Meta(
            description=(
                "Names the drive within its VM and fixes its place in the guest; chosen where null."
            )
        ),
    ] = None
    bus: DiskBus = DiskBus.SATA
    boot_index: BootIndex | None = None


class NicSpec(WireModel, frozen=True, kw_only=True):
    """A network card on a port group."""

    port_group: Slug = "vm-network"
    key: Annotated[
        Annotated[str, Meta(pattern=r"^nic([0-9]|1[0-5])$(?!\n)")] | None,
        Meta(
            description=(
                "Names the card within its VM and fixes its place in the guest; chosen where null."
            )
        ),
    ] = None
    model: Annotated[
        NicModel | None,
        Meta(
            description=(
                "Where null: `virtio`, or `e1000e` for Windows, which has no driver for the other."
            )
        ),
    ] = None
    mac: Annotated[
        MacAddress | None, Meta(description="Drawn at creation where none is given.")
    ] = None
    connected: Annotated[bool, Meta(description="False pulls the virtual cable.")] = True
    boot_index: BootIndex | None = None


class WatchdogSpec(WireModel, frozen=True, kw_only=True):
    """A device that acts when the guest stops feeding it."""

    model: Annotated[
        WatchdogModel,
        Meta(description="`itco` is part of the chipset of every machine without IDE."),
    ] = WatchdogModel.I6300ESB
    action: Annotated[WatchdogAction, Meta(description="An event is published in any case.")] = (
        WatchdogAction.RESET
    )


class VsockSpec(WireModel, frozen=True, kw_only=True):
    """A socket family between guest and host, without a network."""

    cid: Annotated[
        Annotated[int, Meta(ge=3, le=(1 << 32) - 2)] | None,
        Meta(description="The guest's context id, unique on its host; drawn where null."),
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
    """What the guest boots: devices with a `boot_index`, then classes in order, or a kernel
    directly."""

    order: Annotated[
        tuple[BootDevice, ...],
        Meta(description="What isn't in it, and has no `boot_index`, is never booted from."),
    ] = (BootDevice.DISK, BootDevice.CDROM)
    menu_s: Annotated[
        int,
        Meta(
            ge=0,
            le=60,
            description=(
                "Seconds that the firmware waits for a key that opens its boot menu; 0 is no wait."
            ),
        ),
    ] = 0
    kernel: KernelBoot | None = None
