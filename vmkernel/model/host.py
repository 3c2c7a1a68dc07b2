"""The host: identity, hardware, boot, stick, findings."""

from __future__ import annotations

from enum import StrEnum

from vmkernel.model.base import Record, Timestamp

__all__ = [
    "ApiInfo",
    "BootInfo",
    "CpuInfo",
    "Device",
    "DeviceBus",
    "Finding",
    "HostInfo",
    "HostMode",
    "HostProgram",
    "LinkInfo",
    "MemoryInfo",
    "PowerAction",
    "Severity",
    "StickInfo",
    "VirtualisationInfo",
]


class HostMode(StrEnum):
    """How this vmkernel runs."""

    APPLIANCE = "appliance"
    HOSTED = "hosted"


class ApiInfo(Record, frozen=True, kw_only=True):
    """What anyone may know of this host before authenticating."""

    product: str
    version: str
    api_version: str
    mode: HostMode
    claimed: bool
    capabilities: tuple[str, ...]


class CpuInfo(Record, frozen=True, kw_only=True):
    """The host's processors."""

    vendor: str
    model: str
    sockets: int
    cores: int
    threads: int


class MemoryInfo(Record, frozen=True, kw_only=True):
    """The host's memory, as the kernel counts it (`MemTotal`, `MemAvailable`)."""

    total_bytes: int
    available_bytes: int


class VirtualisationInfo(Record, frozen=True, kw_only=True):
    """Whether guests run on the processor."""

    available: bool
    extension: str | None
    """`svm` or `vmx`, where the processor has it."""
    accelerator: str
    """What a VM started now would use: `kvm` or `tcg`."""
    reason: str | None = None


class BootInfo(Record, frozen=True, kw_only=True):
    """How this host was started."""

    firmware: str
    """`uefi` or `bios`."""
    secure_boot: bool
    kernel: str
    bank: str | None
    booted_at: Timestamp
    uptime_s: float
    timings_s: dict[str, float] = {}
    """Seconds from power-on (or kernel start) to named stages, where they are known."""


class StickInfo(Record, frozen=True, kw_only=True):
    """The boot stick, by the block layer's counters since boot."""

    present: bool
    device: str | None = None
    model: str | None = None
    serial: str | None = None
    size_bytes: int = 0
    written_bytes: int = 0
    read_bytes: int = 0


class LinkInfo(Record, frozen=True, kw_only=True):
    """A network interface of the host."""

    name: str
    mac: str | None
    up: bool
    carrier: bool
    driver: str | None = None
    master: str | None = None
    addresses: tuple[str, ...] = ()
    """In CIDR notation."""


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(Record, frozen=True, kw_only=True):
    """Something that the host can't do or that needs attention."""

    code: str
    """Stable, such as `no-virtualisation`, `device-without-driver`, `no-network-link`."""
    severity: Severity
    message: str
    """One sentence that names the object and what to do."""
    subject: str | None = None


class HostProgram(Record, frozen=True, kw_only=True):
    """A program that runs guests or their disks."""

    name: str
    version: str


class HostInfo(Record, frozen=True, kw_only=True):
    """The host as a whole."""

    hostname: str
    uuid: str
    version: str
    mode: HostMode
    cpu: CpuInfo
    memory: MemoryInfo
    virtualisation: VirtualisationInfo
    boot: BootInfo
    stick: StickInfo
    links: tuple[LinkInfo, ...]
    findings: tuple[Finding, ...]
    programs: tuple[HostProgram, ...] = ()
    """Of hosted mode, whose programs are the machine's own."""
    tls_fingerprint_sha256: str


class DeviceBus(StrEnum):
    """The bus that a physical device hangs on."""

    PCI = "pci"
    USB = "usb"


class Device(Record, frozen=True, kw_only=True):
    """A physical device."""

    bus: DeviceBus
    address: str
    """`0000:00:1f.2` (PCI) or `1-1.4` (USB)."""
    vendor_id: str
    product_id: str
    class_code: str
    """PCI class, six hex digits; USB class of the device or its first interface."""
    name: str | None = None
    driver: str | None = None
    module: str | None = None
    bundle: str | None = None
    """The driver bundle that covers it."""
    finding: Finding | None = None


class PowerAction(StrEnum):
    """What the host's power control can do."""

    SHUTDOWN = "shutdown"
    REBOOT = "reboot"
