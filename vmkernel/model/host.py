"""The host: identity, hardware, boot, stick, findings."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = [
    "ApiInfo",
    "BootInfo",
    "CpuInfo",
    "DEVICE_LISTING",
    "Device",
    "DeviceBus",
    "Finding",
    "HostCertificate",
    "HostMode",
    "HostProgram",
    "HostStatus",
    "LinkInfo",
    "MemoryInfo",
    "PowerAction",
    "SecurityInfo",
    "Severity",
    "StickInfo",
    "VirtualisationInfo",
]


class HostMode(OpenEnum):
    """How Mica runs on this machine."""

    APPLIANCE = "appliance"
    HOSTED = "hosted"


class ApiInfo(Record, frozen=True, kw_only=True):
    """What this host is. Without a token, it shows only what a client needs to claim the host."""

    product: Annotated[str, msgspec.Meta(examples=["Mica"])]
    """The product's name."""
    api_version: Annotated[str, msgspec.Meta(examples=["v1"])]
    """The version of this API."""
    claimed: bool
    """False until the claim code is used."""
    version: str | msgspec.UnsetType = msgspec.UNSET
    """The version of Mica; shown only with a token."""
    mode: HostMode | msgspec.UnsetType = msgspec.UNSET
    """Whether Mica runs as an appliance or hosted; shown only with a token."""
    capabilities: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Features that this host supports, for clients to check; shown only with a token."""


class CpuInfo(Record, frozen=True, kw_only=True):
    """The host's CPUs."""

    vendor: str
    model: str
    sockets: int
    cores: int
    """Cores of all sockets in total."""
    threads: int
    """Hardware threads of all cores in total."""


class MemoryInfo(Record, frozen=True, kw_only=True):
    """The host's memory."""

    total_bytes: int
    """The kernel's `MemTotal`."""
    available_bytes: int
    """The kernel's `MemAvailable`."""


class VirtualisationInfo(Record, frozen=True, kw_only=True):
    """Whether hardware virtualisation is available."""

    available: bool
    extension: str | None
    """`svm` or `vmx`; null if the CPU has neither."""
    accelerator: str
    """What a VM started now would use: `kvm` or `tcg`."""
    reason: str | None = None
    """Why hardware virtualisation is not available."""


class BootInfo(Record, frozen=True, kw_only=True):
    """How this host was started."""

    firmware: str
    """`uefi` or `bios`."""
    secure_boot: bool
    kernel: str
    """The release of the running kernel."""
    bank: str | None
    """The boot bank in use."""
    booted_at: Timestamp
    uptime_s: float
    """Seconds since the kernel started."""
    timings_s: dict[str, float] = {}
    """Seconds until named stages of the boot, if known."""


class SecurityInfo(Record, frozen=True, kw_only=True):
    """What the running kernel enforces, as it reports; null if it doesn't report it."""

    lockdown: str | None
    """`none`, `integrity` or `confidentiality`; null if the kernel has no lockdown."""
    security_modules: tuple[str, ...]
    """The kernel's active security modules, in order."""
    secure_boot: bool
    """True if the firmware verified the signature of what it booted."""
    module_signatures_enforced: bool | None
    """True if only signed modules are loaded."""
    modules_locked: bool | None
    """True if no module can be loaded until the next boot."""
    kexec_disabled: bool | None
    """True if no other kernel can be loaded until the next boot."""
    unprivileged_user_namespaces: bool | None
    """True if unprivileged processes may create user namespaces."""
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
    """The kernel's SMT control: `on`, `off`, `forceoff`, `notsupported` or `notimplemented`."""
    smt_active: bool | None
    """True if threads share cores now."""
    cpu_mitigations: dict[str, str]
    """Each vulnerability of the CPU, and how the kernel mitigates it."""
    cpu_vulnerabilities: tuple[str, ...]
    """The vulnerabilities of the CPU that are not mitigated."""


class StickInfo(Record, frozen=True, kw_only=True):
    """The boot stick; counters of the block layer since boot."""

    present: bool
    device: str | None = None
    model: str | None = None
    serial: str | None = None
    size_bytes: int = 0
    written_bytes: int = 0
    """Bytes written since boot."""
    read_bytes: int = 0
    """Bytes read since boot."""


class LinkInfo(Record, frozen=True, kw_only=True):
    """A network interface of the host."""

    name: str
    mac: str | None
    up: bool
    carrier: bool
    driver: str | None = None
    master: str | None = None
    """The bridge or bond that it is part of."""
    addresses: tuple[str, ...] = ()
    """In CIDR notation."""


class Severity(OpenEnum):
    """How important a finding is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(Record, frozen=True, kw_only=True):
    """A limitation of the host, or a condition that needs attention."""

    code: str
    """A stable code, such as `no-virtualisation`."""
    severity: Severity
    message: str
    """One sentence that names the object and what to do."""
    subject: str | None = None


class HostProgram(Record, frozen=True, kw_only=True):
    """A program that Mica uses to run VMs or manage their disks."""

    name: Annotated[str, msgspec.Meta(examples=["qemu-system-x86_64"])]
    version: str


class HostStatus(Record, frozen=True, kw_only=True):
    """What is observed of the host."""

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
    """Hosted mode: the programs of this machine that Mica uses."""
    tls_fingerprint_sha256: str
    """SHA-256 of the API's certificate (DER), as the console shows it."""


class HostCertificate(Record, frozen=True, kw_only=True):
    """The API's new certificate."""

    certificate_pem: str
    """The certificate, for clients that pin it."""
    fingerprint_sha256: str
    """Its SHA-256 fingerprint, as shown on the host's screen."""


class DeviceBus(OpenEnum):
    """The bus of a physical device."""

    PCI = "pci"
    USB = "usb"


class Device(Record, frozen=True, kw_only=True):
    """A physical device."""

    bus: DeviceBus
    address: Annotated[str, msgspec.Meta(examples=["0000:00:1f.2", "1-1.4"])]
    """Its address on the bus."""
    vendor_id: str
    product_id: str
    class_code: str
    """The bus's class code, in hexadecimal."""
    name: str | None = None
    driver: str | None = None
    module: str | None = None
    bundle: str | None = None
    """The driver bundle that covers it."""
    finding: Finding | None = None
    """What is wrong with the device, such as a missing driver."""


class PowerAction(OpenEnum):
    """What to do with the host's power."""

    SHUTDOWN = "shutdown"
    REBOOT = "reboot"


DEVICE_LISTING = Listing(
    item=Device,
    filters={
        "bus": Column("bus"),
        "address": Column("address"),
        "vendor_id": Column("vendor_id"),
        "product_id": Column("product_id"),
        "class_code": Column("class_code"),
        "name": Column("name"),
        "driver": Column("driver", text="Empty for what has no driver."),
        "bundle": Column("bundle"),
        "finding": Column("finding.code", text="Empty for what nothing is wrong with."),
    },
    sort={
        "address": Column("address"),
        "vendor_id": Column("vendor_id"),
        "class_code": Column("class_code"),
        "name": Column("name"),
        "driver": Column("driver"),
    },
    summary=("name", "driver", "finding.code"),
    key=("bus", "address"),
)
