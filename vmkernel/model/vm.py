"""VMs: what is wanted (spec) and what is observed (status)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from vmkernel.model.base import (
    Description,
    DisplayName,
    OpenEnum,
    Record,
    ShortText,
    Slug,
    Timestamp,
)
from vmkernel.model.cloud_init import CloudInitSpec
from vmkernel.model.guest_agent import AgentStatus
from vmkernel.model.listing import Column, Listing
from vmkernel.model.scope import Change, Scope
from vmkernel.model.vm_hardware import (
    BootSpec,
    CdromSpec,
    ClockSpec,
    CpuSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    GuestOs,
    HotPlugSpec,
    MemorySpec,
    NicSpec,
    VsockSpec,
    WatchdogSpec,
)
from vmkernel.model.vm_life import (
    AutostartSpec,
    MemoryImageStatus,
    OnPanic,
    RestartSpec,
    RestartStatus,
    SecureBootStatus,
    StopSpec,
)

__all__ = [
    "ConsoleKind",
    "NicStatus",
    "SCOPES",
    "VM_LISTING",
    "Vm",
    "VmAction",
    "VmSpec",
    "VmState",
    "VmStatus",
]

MEMORY_STEP_BYTES = 1 << 20
LabelKey = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$(?!\n)")
]
Labels = Annotated[dict[LabelKey, ShortText], msgspec.Meta(max_length=64)]


class VmSpec(Record, frozen=True, kw_only=True):
    """What a VM is wanted to be."""

    datastore: Slug
    """The datastore of the VM's folder; fixed at creation."""
    name: DisplayName = ""
    """A display name; if empty, the ID is shown."""
    description: Description = ""
    labels: Labels = {}
    guest_os: GuestOs = GuestOs.LINUX
    """Selects defaults. With `windows`: SATA disks, e1000e NICs, the clock in local time, Hyper-V
    enlightenments, and a second CD-ROM drive with the image `virtio-win` if that exists."""
    cpus: CpuSpec = CpuSpec()
    memory_bytes: Annotated[
        int, msgspec.Meta(ge=16 << 20, le=16 << 40, multiple_of=MEMORY_STEP_BYTES)
    ] = 512 << 20
    """A whole number of MiB."""
    memory: MemorySpec = MemorySpec()
    firmware: Firmware = Firmware.UEFI
    clock: ClockSpec = ClockSpec()
    disks: Annotated[tuple[DiskSpec, ...], msgspec.Meta(max_length=64)] = ()
    cdroms: Annotated[tuple[CdromSpec, ...], msgspec.Meta(max_length=8)] = ()
    nics: Annotated[tuple[NicSpec, ...], msgspec.Meta(max_length=16)] = ()
    hot_plug: HotPlugSpec = HotPlugSpec()
    boot: BootSpec = BootSpec()
    display: DisplayModel = DisplayModel.STD
    serial_ports: Annotated[int, msgspec.Meta(ge=0, le=4)] = 1
    """Serial ports, from COM1 on."""
    tablet: bool = True
    """A USB tablet (absolute pointer positions) if there is a display."""
    keyboard: bool = False
    """A USB keyboard; every machine also has a PS/2 keyboard."""
    rng: bool = True
    """A virtio random number generator."""
    guest_agent: bool = True
    """A channel to the guest agent."""
    tpm: bool = False
    """A TPM 2.0; its state is stored in the VM's folder."""
    watchdog: WatchdogSpec | None = None
    vsock: VsockSpec | None = None
    cloud_init: CloudInitSpec | None = None
    """What cloud-init configures in the guest at its first start."""
    template: bool = False
    """A template can be cloned but not started."""
    restart: RestartSpec = RestartSpec()
    autostart: AutostartSpec = AutostartSpec()
    stop: StopSpec = StopSpec()
    on_panic: OnPanic = OnPanic.NONE


_HOST = Scope(Change.HOST_ONLY, guest=False)
_LIVE = Scope(Change.LIVE)
_NEXT_START = Scope(Change.NEXT_START)
_OFF = Scope(Change.POWERED_OFF)

SCOPES: Final[Mapping[str, Scope]] = MappingProxyType(
    {
        "datastore": Scope(Change.CREATION, guest=False, own=True),
        "name": Scope(Change.HOST_ONLY, guest=False, own=True),
        "description": _HOST,
        "labels": _HOST,
        "guest_os": _OFF,
        "cpus.count": _LIVE,
        "cpus.max_count": _OFF,
        "cpus.sockets": _OFF,
        "cpus.cores": _OFF,
        "cpus.threads": _OFF,
        "cpus.model": _OFF,
        "memory_bytes": _LIVE,
        "memory.max_bytes": _OFF,
        "memory.huge_pages": _OFF,
        "memory.balloon": _OFF,
        "memory.target_bytes": _LIVE,
        "firmware": _OFF,
        "clock.base": _OFF,
        "clock.utc_offset_minutes": _OFF,
        "disks[]": _LIVE,
        "disks[].volume": _OFF,
        "disks[].key": _LIVE,
        "disks[].bus": _OFF,
        "disks[].boot_index": _NEXT_START,
        "disks[].cache": _OFF,
        "disks[].discard": _OFF,
        "disks[].read_only": _OFF,
        "disks[].limits": _LIVE,
        "cdroms[]": _OFF,
        "cdroms[].image": _LIVE,
        "cdroms[].key": _OFF,
        "cdroms[].bus": _OFF,
        "cdroms[].boot_index": _NEXT_START,
        "nics[]": _LIVE,
        "nics[].port_group": _OFF,
        "nics[].key": _LIVE,
        "nics[].model": _OFF,
        "nics[].mac": Scope(Change.POWERED_OFF, own=True),
        "nics[].connected": _LIVE,
        "nics[].boot_index": _NEXT_START,
        "hot_plug.disks": _OFF,
        "hot_plug.nics": _OFF,
        "boot.order": _NEXT_START,
        "boot.menu_s": _NEXT_START,
        "boot.kernel": _OFF,
        "display": _OFF,
        "serial_ports": _OFF,
        "tablet": _LIVE,
        "keyboard": _LIVE,
        "rng": _OFF,
        "guest_agent": _OFF,
        "tpm": _OFF,
        "watchdog": _OFF,
        "watchdog.model": _OFF,
        "watchdog.action": _LIVE,
        "vsock": _OFF,
        "vsock.cid": Scope(Change.POWERED_OFF, own=True),
        "cloud_init": Scope(Change.POWERED_OFF, first_start=True),
        "template": Scope(Change.POWERED_OFF, guest=False, own=True),
        "restart": _HOST,
        "autostart": Scope(Change.HOST_ONLY, guest=False, own=True),
        "stop": _HOST,
        "on_panic": _HOST,
    }
)
"""The one table of scopes, beside the fields. The hot-plug planner, reverts, clones, memory images,
the API document (`x-mica-change`) and the CLI derive from it. A test fails for a field that is
missing here, and for a guest's field whose change reaches neither QEMU's command line nor a running
machine.

By path: `disks[]` are the disks themselves, `disks[].limits` a field of each. A field below a path
that is given whole, such as `autostart.enabled`, has the scope of that path. A record whose fields
are given one by one, such as `cpus`, has no scope of its own. A disk or NIC whose key changes is
another device: the old one is removed and the new one added.
"""


class VmState(OpenEnum):
    """The state of a VM; `migrating` is reserved and not used yet."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDING = "suspending"
    """Its memory is being written to disk."""
    SUSPENDED = "suspended"
    """Its memory is saved on disk; QEMU isn't running."""
    STOPPING = "stopping"
    CRASHED = "crashed"
    MIGRATING = "migrating"
    """Reserved; not used yet."""
    UNUSABLE = "unusable"


class VmAction(OpenEnum):
    """A request that changes a VM's state."""

    START = "start"
    SHUTDOWN = "shutdown"
    POWER_OFF = "power-off"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    """Continue a paused or suspended VM."""
    SUSPEND = "suspend"
    """Write the memory to disk and stop QEMU."""
    DISCARD_STATE = "discard-state"
    """Discard the saved memory of a suspended VM: its next start is a cold boot."""
    UPDATE_SECURE_BOOT = "update-secure-boot"
    """Add the missing Secure Boot certificates to the firmware variables."""


class ConsoleKind(OpenEnum):
    """The stream that a console opens."""

    SERIAL = "serial"
    VNC = "vnc"


class NicStatus(Record, frozen=True, kw_only=True):
    """A NIC of a running VM."""

    key: str = ""
    mac: str
    port_group: str
    tap: str | None = None


class VmStatus(Record, frozen=True, kw_only=True):
    """What is observed of a VM."""

    state: VmState
    uuid: str
    machine_type: str
    """QEMU's machine type, pinned at creation, such as `pc-q35-10.0`."""
    reason: str | None = None
    """Why it is paused, crashed or unusable, or why the last start failed."""
    started_at: Timestamp | None = None
    accelerator: str | None = None
    """`kvm` or `tcg`, while it runs."""
    nics: tuple[NicStatus, ...] = ()
    unplugging: tuple[str, ...] = ()
    """The keys of devices that the guest was asked to release but still holds; each is removed from
    the VM when the guest releases it."""
    agent: AgentStatus | None = None
    """The guest agent, while the VM runs with a channel to it."""
    restart: RestartStatus | None = None
    """Null until the restart policy acts for the first time."""
    memory_image: MemoryImageStatus | None = None
    """The saved memory, while it is suspended."""
    secure_boot: SecureBootStatus | None = None
    """Null without Secure Boot, and until the firmware variables exist and have been read."""


class Vm(Record, frozen=True, kw_only=True):
    """A VM."""

    id: Slug
    revision: int
    """Counts the changes of the spec; used as the ETag."""
    created_at: Timestamp
    spec: VmSpec
    status: VmStatus


_NAME = Column("spec.name", otherwise="id", text="The display name; the id if there is none.")

VM_LISTING = Listing(
    item=Vm,
    filters={
        "id": Column("id"),
        "name": _NAME,
        "state": Column("status.state"),
        "datastore": Column("spec.datastore"),
        "guest_os": Column("spec.guest_os"),
        "firmware": Column("spec.firmware"),
        "template": Column("spec.template"),
        "autostart": Column("spec.autostart.enabled"),
        "accelerator": Column("status.accelerator"),
        "volume": Column("spec.disks.volume", text="A volume that is one of its disks."),
        "image": Column("spec.cdroms.image", text="An image in one of its CD-ROM drives."),
        "port_group": Column("spec.nics.port_group", text="Where one of its cards is connected."),
        "mac": Column("spec.nics.mac", text="The address of one of its cards."),
    },
    sort={
        "id": Column("id"),
        "name": _NAME,
        "state": Column("status.state"),
        "datastore": Column("spec.datastore"),
        "created_at": Column("created_at"),
        "started_at": Column("status.started_at"),
        "cpus": Column("spec.cpus.count"),
        "memory_bytes": Column("spec.memory_bytes"),
    },
    summary=(
        *("revision", "created_at", "spec.name", "spec.datastore", "spec.labels"),
        *("spec.cpus.count", "spec.memory_bytes", "spec.template"),
        *("status.state", "status.reason", "status.started_at"),
    ),
    labels="spec.labels",
)
