"""A machine plan with one of everything, for command lines."""

from __future__ import annotations

from dataclasses import fields, replace
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
    CdromSpec,
    CpuSpec,
    DiskBus,
    DiskSpec,
    DisplayModel,
    NicModel,
    NicSpec,
    VmSpec,
    VolumeFormat,
)

__all__ = ["cdrom", "disk", "nic", "plan"]


def disk(bus: DiskBus, name: str = "v", key: str = "disk0", **changes: Any) -> DiskPlan:
    made = DiskPlan(
        key=key,
        bus=bus,
        path=Path(f"/ds/{name}.qcow2"),
        format=VolumeFormat.QCOW2,
        serial=name,
        aio=Aio.THREADS,
        direct=True,
    )
    made = replace(made, **changes)
    return replace(made, aio=Aio.NATIVE if made.direct else Aio.THREADS)


def cdrom(
    bus: DiskBus = DiskBus.SATA, path: str | None = "/ds/cd.iso", key: str = "cdrom0"
) -> CdromPlan:
    return CdromPlan(key=key, bus=bus, path=None if path is None else Path(path))


def nic(model: NicModel = NicModel.VIRTIO, key: str = "nic0", **changes: Any) -> NicPlan:
    return replace(NicPlan(key, model, "52:54:00:00:00:01", UserBackend()), **changes)


def plan(**changes: Any) -> MachinePlan:
    """A small machine; fields of the spec and of the plan can be otherwise. Its disks, drives and
    cards are in the spec too."""
    for kind, name in (("disks", "disk"), ("cdroms", "cdrom"), ("nics", "nic")):
        if kind in changes and len({item.key for item in changes[kind]}) < len(changes[kind]):
            changes[kind] = tuple(
                replace(item, key=f"{name}{number}") for number, item in enumerate(changes[kind])
            )
    made = MachinePlan(
        vm_id="web",
        uuid="00000000-0000-4000-8000-000000000001",
        machine_type="pc-q35-10.0",
        accelerator=Accelerator.KVM,
        spec=_spec(changes),
        firmware=None,
        disks=(),
        cdroms=(),
        nics=(),
        kernel=None,
        qmp_fd=10,
        kvm_fd=None,
        serial=(SerialPlan(fd=11, scrollback_bytes=65536),),
        agent_fd=12,
    )
    own = {field.name for field in fields(MachinePlan)}
    return replace(made, **{name: value for name, value in changes.items() if name in own})


def _spec(changes: dict[str, Any]) -> VmSpec:
    devices = {
        "disks": tuple(
            DiskSpec(volume="v", key=d.key, bus=d.bus) for d in changes.get("disks", ())
        ),
        "cdroms": tuple(CdromSpec(key=c.key, bus=c.bus) for c in changes.get("cdroms", ())),
        "nics": tuple(
            NicSpec(key=n.key, model=n.model, mac=n.mac) for n in changes.get("nics", ())
        ),
    }
    given = {"display": DisplayModel.NONE, "cpus": CpuSpec(count=2), **changes, **devices}
    known = VmSpec.__struct_fields__
    return VmSpec(datastore="main", **{n: v for n, v in given.items() if n in known})
