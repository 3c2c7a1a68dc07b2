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
    "HostCertificate",
    "HostInfo",
    "HostMode",
    "HostProgram",
    "LinkInfo",
    "MemoryInfo",
    "PowerAction",
    "SecurityInfo",
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


class SecurityInfo(Record, frozen=True, kw_only=True):
    """What the running kernel enforces, as it says itself; null for what it doesn't tell."""

    lockdown: str | None
    """`none`, `integrity` or `confidentiality`; null if the kernel has no lockdown."""
    security_modules: tuple[str, ...]
    """The kernel's active security modules, in order."""
    secure_boot: bool
    """True if the firmware checked the signature of what it started."""
    module_signatures_enforced: bool | None
    """True if only signed modules are loaded."""
    modules_locked: bool | None
    """True if no module can be loaded until the next start."""
    kexec_disabled: bool | None
    """True if no other kernel can be loaded until the next start."""
    unprivileged_user_namespaces: bool | None
    """True if a process without privileges may make a user namespace."""
    io_uring: str | None
    """Who may use io_uring: `allowed` (everyone), `privileged` or `disabled`."""
    executable_memfd: str | None
    """Whether a file in memory can be executed: `allowed`, `on-request` or `refused`."""
    usb_devices: str | None
    """Which USB devices are used: `listed` (hubs, storage and the bundles' network adapters),
    `internal` or `all`."""
    iommu: str
    """How devices reach memory: `strict` or `lazy` (only what their driver gave them),
    `passthrough` or `none` (all of it)."""
    smt: str | None
    """The kernel's SMT control: `on`, `off`, `forceoff`, `notsupported`, `notimplemented`."""
    smt_active: bool | None
    """True if threads share cores now."""
    cpu_mitigations: dict[str, str]
    """Each weakness that the processor has, and how the kernel deals with it."""
    cpu_vulnerabilities: tuple[str, ...]
    """The weaknesses of the processor that nothing mitigates."""


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
    security: SecurityInfo
    stick: StickInfo
    links: tuple[LinkInfo, ...]
    findings: tuple[Finding, ...]
    programs: tuple[HostProgram, ...] = ()
    """Of hosted mode, whose programs are the machine's own."""
    tls_fingerprint_sha256: str


class HostCertificate(Record, frozen=True, kw_only=True):
    """What the API proves itself with."""

    certificate_pem: str
    fingerprint_sha256: str
    """Of the certificate (DER), as the console shows it."""


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
