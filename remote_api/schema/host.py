"""The host: identity, hardware, boot, stick, findings."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import Timestamp, WireEnum, WireModel

__all__ = [
    "ApiInfo",
    "BootInfo",
    "CpuInfo",
    "Device",
    "DeviceBus",
    "DevicePage",
    "Finding",
    "Host",
    "HostCertificate",
    "HostMode",
    "HostProgram",
    "HostStatus",
    "LinkInfo",
    "MemoryInfo",
    "PowerAction",
    "PowerBody",
    "SecurityInfo",
    "Severity",
    "StickInfo",
    "VirtualisationInfo",
]


class HostMode(WireEnum):
    """How this Mica runs."""

    APPLIANCE = "appliance"
    HOSTED = "hosted"


class ApiInfo(WireModel, frozen=True, kw_only=True):
    """What this host is. Without a token, only what a client needs to claim it is told."""

    product: Annotated[str, Meta(description="The product's name.", examples=["Mica"])]
    api_version: Annotated[str, Meta(description="The version of this API.", examples=["v1"])]
    claimed: Annotated[bool, Meta(description="False until someone spent the claim code.")]
    version: (
        Annotated[str, Meta(description="The version of Mica that runs; with a token only.")]
        | UnsetType
    ) = UNSET
    mode: (
        Annotated[
            HostMode,
            Meta(description="Whether Mica owns the machine or is a guest; with a token only."),
        ]
        | UnsetType
    ) = UNSET
    capabilities: (
        Annotated[
            tuple[str, ...],
            Meta(
                description="Names of what this host can do, for clients to ask; with a token only."
            ),
        ]
        | UnsetType
    ) = UNSET


class HostCertificate(WireModel, frozen=True, kw_only=True):
    """What this API proves itself with from now on."""

    certificate_pem: Annotated[str, Meta(description="The certificate, for clients that pin it.")]
    fingerprint_sha256: Annotated[
        str, Meta(description="Its SHA-256 fingerprint, as the host's screen shows it.")
    ]


class CpuInfo(WireModel, frozen=True, kw_only=True):
    """The host's processors."""

    vendor: str
    model: str
    sockets: int
    cores: Annotated[int, Meta(description="Cores of all sockets together.")]
    threads: Annotated[int, Meta(description="Hardware threads of all cores together.")]


class MemoryInfo(WireModel, frozen=True, kw_only=True):
    """The host's memory."""

    total_bytes: Annotated[int, Meta(description="The kernel's `MemTotal`.")]
    available_bytes: Annotated[int, Meta(description="The kernel's `MemAvailable`.")]


class VirtualisationInfo(WireModel, frozen=True, kw_only=True):
    """Whether guests run on the processor."""

    available: bool
    extension: Annotated[
        str | None, Meta(description="`svm` or `vmx`, where the processor has one.")
    ]
    accelerator: Annotated[
        str, Meta(description="What a VM started now would use: `kvm` or `tcg`.")
    ]
    reason: Annotated[str | None, Meta(description="Why it is not available.")] = None


class BootInfo(WireModel, frozen=True, kw_only=True):
    """How this host was started."""

    firmware: Annotated[str, Meta(description="`uefi` or `bios`.")]
    secure_boot: bool
    kernel: Annotated[str, Meta(description="The release of the running kernel.")]
    bank: Annotated[str | None, Meta(description="The boot bank that was started.")]
    booted_at: Timestamp
    uptime_s: Annotated[float, Meta(description="Seconds since the kernel started.")]
    timings_s: Annotated[
        dict[str, float], Meta(description="Seconds to named stages, where they are known.")
    ] = {}


class SecurityInfo(WireModel, frozen=True, kw_only=True):
    """What the running kernel enforces, as it says itself; null for what it doesn't tell."""

    lockdown: Annotated[
        str | None,
        Meta(
            description="`none`, `integrity` or `confidentiality`; "
            "null if the kernel has no lockdown."
        ),
    ]
    security_modules: Annotated[
        tuple[str, ...], Meta(description="The kernel's active security modules, in order.")
    ]
    secure_boot: Annotated[
        bool, Meta(description="True if the firmware checked the signature of what it started.")
    ]
    module_signatures_enforced: Annotated[
        bool | None, Meta(description="True if only signed modules are loaded.")
    ]
    modules_locked: Annotated[
        bool | None, Meta(description="True if no module can be loaded until the next start.")
    ]
    kexec_disabled: Annotated[
        bool | None, Meta(description="True if no other kernel can be loaded until the next start.")
    ]
    unprivileged_user_namespaces: Annotated[
        bool | None,
        Meta(description="True if a process without privileges may make a user namespace."),
    ]
    io_uring: Annotated[
        str | None,
        Meta(description="Who may use io_uring: `allowed` (everyone), `privileged` or `disabled`."),
    ]
    executable_memfd: Annotated[
        str | None,
        Meta(
            description="Whether a file in memory can be executed: "
            "`allowed`, `on-request` or `refused`."
        ),
    ]
    usb_devices: Annotated[
        str | None,
        Meta(
            description="Which USB devices are used: `listed` (hubs, storage and the bundles' "
            "network adapters), `internal` or `all`."
        ),
    ]
    iommu: Annotated[
        str,
        Meta(
            description="How devices reach memory: `strict` or `lazy` (only what their driver "
            "gave them), `passthrough` or `none` (all of it)."
        ),
    ]
    smt: Annotated[
        str | None,
        Meta(
            description="The kernel's SMT control: `on`, `off`, `forceoff`, `notsupported` "
            "or `notimplemented`."
        ),
    ]
    smt_active: Annotated[bool | None, Meta(description="True if threads share cores now.")]
    cpu_mitigations: Annotated[
        dict[str, str],
        Meta(description="Each weakness that the processor has, and how the kernel deals with it."),
    ]
    cpu_vulnerabilities: Annotated[
        tuple[str, ...], Meta(description="The weaknesses of the processor that nothing mitigates.")
    ]


class StickInfo(WireModel, frozen=True, kw_only=True):
    """The boot stick, by the block layer's own counters since boot."""

    present: bool
    device: str | None = None
    model: str | None = None
    serial: str | None = None
    size_bytes: int = 0
    written_bytes: Annotated[int, Meta(description="Bytes written to the stick since boot.")] = 0
    read_bytes: Annotated[int, Meta(description="Bytes read from the stick since boot.")] = 0


class LinkInfo(WireModel, frozen=True, kw_only=True):
    """A network interface of the host."""

    name: str
    mac: str | None
    up: bool
    carrier: bool
    driver: str | None = None
    master: Annotated[str | None, Meta(description="The bridge or bond that it belongs to.")] = None
    addresses: Annotated[tuple[str, ...], Meta(description="In CIDR notation.")] = ()


class Severity(WireEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Finding(WireModel, frozen=True, kw_only=True):
    """Something that the host can't do or that needs attention."""

    code: Annotated[str, Meta(description="Stable, such as `no-virtualisation`.")]
    severity: Severity
    message: Annotated[str, Meta(description="One sentence: the object and what to do.")]
    subject: str | None = None


class HostProgram(WireModel, frozen=True, kw_only=True):
    """A program that runs guests or their disks."""

    name: Annotated[str, Meta(examples=["qemu-system-x86_64"])]
    version: str


class HostStatus(WireModel, frozen=True, kw_only=True):
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
    programs: Annotated[
        tuple[HostProgram, ...],
        Meta(description="Hosted mode: the machine's own programs that Mica uses."),
    ] = ()
    tls_fingerprint_sha256: Annotated[
        str, Meta(description="SHA-256 of the API's certificate (DER), as the console shows it.")
    ]


class Host(WireModel, frozen=True, kw_only=True):
    """The host as a resource."""

    status: HostStatus


class DeviceBus(WireEnum):
    """The bus that a physical device hangs on."""

    PCI = "pci"
    USB = "usb"


class Device(WireModel, frozen=True, kw_only=True):
    """A physical device."""

    bus: DeviceBus
    address: Annotated[
        str, Meta(description="The place on its bus.", examples=["0000:00:1f.2", "1-1.4"])
    ]
    vendor_id: str
    product_id: str
    class_code: Annotated[str, Meta(description="The bus's class code, in hexadecimal.")]
    name: str | None = None
    driver: str | None = None
    module: str | None = None
    bundle: Annotated[str | None, Meta(description="The driver bundle that covers it.")] = None
    finding: Annotated[
        Finding | None, Meta(description="What is wrong with it, such as a missing driver.")
    ] = None


class DevicePage(WireModel, frozen=True, kw_only=True):
    """A part of the physical devices."""

    items: tuple[Device, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class PowerAction(WireEnum):
    """What the host's power control can do."""

    SHUTDOWN = "shutdown"
    REBOOT = "reboot"


class PowerBody(WireModel, frozen=True, kw_only=True):
    """What to do with the host's power, once the guests have ended."""

    action: PowerAction
