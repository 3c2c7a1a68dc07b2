"""Virtual machines: what is wanted (spec) and what is observed (status)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import (
    Description,
    DisplayName,
    ObjectBody,
    ShortText,
    Slug,
    Timestamp,
    WireEnum,
    WireModel,
)
from remote_api.schema.cloud_init import CloudInitSpec
from remote_api.schema.guest_agent import AgentStatus
from remote_api.schema.machine_state import MachineState
from remote_api.schema.vm_hardware import (
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
from remote_api.schema.vm_life import (
    AutostartSpec,
    MemoryImageStatus,
    OnPanic,
    RestartSpec,
    RestartStatus,
    SecureBootStatus,
    StopSpec,
)

__all__ = [
    "DeleteVmQuery",
    "NicStatus",
    "SavedVm",
    "ShutdownQuery",
    "Vm",
    "VmBody",
    "VmPage",
    "VmSpec",
    "VmState",
    "VmStatus",
]

LabelKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$(?!\n)")]


class VmSpec(WireModel, frozen=True, kw_only=True):
    """What a virtual machine is wanted to be."""

    datastore: Annotated[Slug, Meta(description="Where its folder lies; fixed at creation.")]
    name: Annotated[
        DisplayName,
        Meta(description="A free display name; the id is shown where it is empty."),
    ] = ""
    description: Description = ""
    labels: Annotated[dict[LabelKey, ShortText], Meta(max_length=64)] = {}
    guest_os: Annotated[
        GuestOs,
        Meta(
            description=(
                "Chooses defaults: with `windows`, SATA disks and e1000e cards, a clock in local"
                " time, Hyper-V's interfaces, and a second CD-ROM drive with the image `virtio-win`"
                " where there is one."
            )
        ),
    ] = GuestOs.LINUX
    cpus: CpuSpec = CpuSpec()
    memory_bytes: Annotated[
        int,
        Meta(ge=16 << 20, le=16 << 40, multiple_of=1 << 20, description="Whole mebibytes."),
    ] = 512 << 20
    memory: MemorySpec = MemorySpec()
    firmware: Firmware = Firmware.UEFI
    clock: ClockSpec = ClockSpec()
    disks: Annotated[tuple[DiskSpec, ...], Meta(max_length=64)] = ()
    cdroms: Annotated[tuple[CdromSpec, ...], Meta(max_length=8)] = ()
    nics: Annotated[tuple[NicSpec, ...], Meta(max_length=16)] = ()
    hot_plug: HotPlugSpec = HotPlugSpec()
    boot: BootSpec = BootSpec()
    display: DisplayModel = DisplayModel.STD
    serial_ports: Annotated[int, Meta(ge=0, le=4, description="Serial lines, from COM1 on.")] = 1
    tablet: Annotated[
        bool, Meta(description="A pointer with absolute positions, where there is a display.")
    ] = True
    keyboard: Annotated[
        bool, Meta(description="A USB keyboard; every machine has one of the old kind.")
    ] = False
    rng: Annotated[bool, Meta(description="A source of random numbers.")] = True
    guest_agent: Annotated[bool, Meta(description="The channel to the agent in the guest.")] = True
    tpm: Annotated[bool, Meta(description="A TPM 2.0, with its state in the VM's folder.")] = False
    watchdog: WatchdogSpec | None = None
    vsock: VsockSpec | None = None
    restart: RestartSpec = RestartSpec()
    autostart: AutostartSpec = AutostartSpec()
    stop: StopSpec = StopSpec()
    on_panic: OnPanic = OnPanic.NONE
    cloud_init: Annotated[
        CloudInitSpec | None, Meta(description="What the guest is told at its first start.")
    ] = None
    template: Annotated[
        bool, Meta(description="True for one that is only cloned, and can't be started.")
    ] = False


class VmBody(ObjectBody, frozen=True, kw_only=True):
    """A virtual machine to create, or the whole of what it is to be from now on."""

    spec: VmSpec
    machine: Annotated[
        MachineState | None,
        Meta(description="Only when creating: makes a saved VM the same machine again."),
    ] = None


class SavedVm(WireModel, frozen=True, kw_only=True):
    """A virtual machine as a backup has it; what creates it again is the same."""

    spec: VmSpec
    machine: Annotated[MachineState, Meta(description="What makes it the same machine again.")]


class VmState(WireEnum):
    """Where a virtual machine stands; `migrating` is reserved, no VM is in it yet."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    CRASHED = "crashed"
    MIGRATING = "migrating"
    UNUSABLE = "unusable"


class NicStatus(WireModel, frozen=True, kw_only=True):
    """A network card as it runs."""

    key: str = ""
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
        str | None,
        Meta(description="Why it is paused, crashed or unusable, or the last start failed."),
    ] = None
    started_at: Timestamp | None = None
    accelerator: Annotated[str | None, Meta(description="`kvm` or `tcg`, while it runs.")] = None
    nics: tuple[NicStatus, ...] = ()
    unplugging: Annotated[
        tuple[str, ...],
        Meta(
            description=(
                "The keys of devices that the guest was asked to give up and still has: the VM"
                " loses each when the guest lets go of it."
            )
        ),
    ] = ()
    agent: Annotated[
        AgentStatus | None,
        Meta(description="The agent in the guest, while it runs with a channel to one."),
    ] = None
    restart: Annotated[
        RestartStatus | None, Meta(description="Null where the policy has had nothing to do.")
    ] = None
    memory_image: Annotated[
        MemoryImageStatus | None, Meta(description="What it goes on from, while it is suspended.")
    ] = None
    secure_boot: Annotated[
        SecureBootStatus | None,
        Meta(
            description="Null without Secure Boot, and until the firmware variables are made or"
            " looked at."
        ),
    ] = None


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
