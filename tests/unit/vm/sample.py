"""A machine plan with one of everything, for command lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vmkernel.devices import (
    Accelerator,
    Aio,
    CdromPlan,
    DiskPlan,
    MachinePlan,
    NicPlan,
    SerialPlan,
    UserBackend,
)
from vmkernel.model import (
    BootDevice,
    CpuSpec,
    DiskBus,
    DisplayModel,
    NicModel,
    VolumeFormat,
)

__all__ = ["cdrom", "disk", "nic", "plan"]


def disk(bus: DiskBus, name: str = "v", **changes: Any) -> DiskPlan:
    made = DiskPlan(
        bus=bus,
        path=Path(f"/ds/{name}.qcow2"),
        format=VolumeFormat.QCOW2,
        serial=name,
        aio=Aio.IO_URING,
        direct=True,
    )
    return replace(made, **changes)


def cdrom(bus: DiskBus = DiskBus.SATA, path: str | None = "/ds/cd.iso") -> CdromPlan:
    return CdromPlan(bus=bus, path=None if path is None else Path(path))


def nic(model: NicModel = NicModel.VIRTIO, **changes: Any) -> NicPlan:
    return replace(NicPlan(model, "52:54:00:00:00:01", UserBackend()), **changes)


def plan(**changes: Any) -> MachinePlan:
    made = MachinePlan(
        vm_id="web",
        uuid="00000000-0000-4000-8000-000000000001",
        machine_type="pc-q35-10.0",
        accelerator=Accelerator.KVM,
        cpus=CpuSpec(count=2),
        memory_bytes=512 << 20,
        firmware=None,
        disks=(),
        cdroms=(),
        nics=(),
        display=DisplayModel.NONE,
        boot_order=(BootDevice.DISK, BootDevice.CDROM),
        kernel=None,
        qmp_fd=10,
        kvm_fd=None,
        serial=SerialPlan(fd=11, scrollback_bytes=65536),
        agent_fd=12,
    )
    return replace(made, **changes)
