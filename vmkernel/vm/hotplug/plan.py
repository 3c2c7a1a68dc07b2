"""The changes that turn a running VM into the wanted one; pure.

Each difference between the two specs is handled by its scope (`SCOPES` in `vmkernel/model/vm.py`):
host-only and next-start fields need nothing, powered-off fields are refused, and a live one is a
setting of a device or has a function here, in `_FOLLOWED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from vmkernel.devices import DISK_BUSES, SETTINGS, Family
from vmkernel.devices.defaults import disk_bus_of, has_bus, nic_model_of
from vmkernel.devices.device import Setting
from vmkernel.devices.hotplug import (
    can_plug_disk,
    can_plug_nic,
    free_disk_numbers,
    free_nic_numbers,
)
from vmkernel.devices.memory import DIMM_STEP_BYTES
from vmkernel.devices.nic import NIC_KINDS
from vmkernel.devices.plan import number_of
from vmkernel.devices.usb import NO_USB, has_usb
from vmkernel.model import (
    CdromSpec,
    DiskBus,
    DiskSpec,
    ErrorCode,
    FieldError,
    MicaError,
    NicSpec,
    VmSpec,
)
from vmkernel.model.scope import Change
from vmkernel.model.vm import SCOPES
from vmkernel.model.vm_differences import Difference, differences

__all__ = ["Changes", "plan_changes"]

Keyed = TypeVar("Keyed", DiskSpec, CdromSpec, NicSpec)

_STOP = "This can only be changed while the VM is stopped: shut the VM down first."
_TARGET = "memory.target_bytes"


@dataclass
class Changes:
    """The steps, in the order of these fields; a removal comes last, because it needs the guest's
    consent and can't be taken back."""

    new_disks: list[DiskSpec] = field(default_factory=list)
    new_nics: list[NicSpec] = field(default_factory=list)
    media: list[CdromSpec] = field(default_factory=list)
    cpus: int = 0
    """The number of vCPUs to add."""
    memory_bytes: int = 0
    """The bytes to add."""
    settings: list[Difference] = field(default_factory=list)
    """Fields that need only commands; those marked `last` come after the memory."""
    old_nics: list[NicSpec] = field(default_factory=list)
    old_disks: list[DiskSpec] = field(default_factory=list)


def plan_changes(old: VmSpec, new: VmSpec, *, at_start: VmSpec, family: Family) -> Changes:
    """The way from one complete spec to another; `conflict` with every field that prevents it.

    `at_start` is the spec that the machine was started with, which determines the ports.
    """
    planner = _Planner(old, new, at_start, family)
    for found in differences(old, new):
        match found.scope.change:
            case Change.HOST_ONLY | Change.NEXT_START:
                pass
            case Change.LIVE:
                if (setting := SETTINGS.get(found.path)) is not None:
                    _plan_setting(planner, found, setting)
                else:
                    _FOLLOWED[found.path](planner, found)
            case Change.POWERED_OFF | Change.CREATION:
                planner.bar(found.pointer, _why_off(found))
    if planner.wrong:
        wrong = tuple(planner.wrong)
        raise MicaError(ErrorCode.CONFLICT, wrong[0].detail, fields=wrong)
    return planner.changes


@dataclass
class _Planner:
    """The specs, and what has been found out so far."""

    old: VmSpec
    new: VmSpec
    at_start: VmSpec
    family: Family
    changes: Changes = field(default_factory=Changes)
    wrong: list[FieldError] = field(default_factory=list)

    def bar(self, pointer: str, why: str = _STOP) -> None:
        """A field can't be changed now."""
        self.wrong.append(FieldError(pointer=pointer, detail=why))


def _why_off(found: Difference) -> str:
    holder, dot, _ = found.path.rpartition(".")
    if dot and holder.endswith("[]") and SCOPES[holder].change is Change.LIVE:
        what = "disk" if holder == "disks[]" else "card"
        return (
            f"The {what} {found.key} can't be changed while the VM runs: remove it, then add"
            " it again."
        )
    if found.path == "cdroms[]":
        if found.new is None:
            return "A drive can't be removed while the VM runs; eject it."
        return "A drive can't be added while the VM runs."
    return _STOP


def _numbers(
    items: tuple[Keyed, ...], wanted: Callable[[Keyed], bool] = lambda _: True
) -> list[int]:
    return [number_of(item.key) for item in items if item.key and wanted(item)]


def _plan_disk(planner: _Planner, found: Difference) -> None:
    """A disk to add or remove."""
    family, at_start = planner.family, planner.at_start
    if found.new is None:
        bus = disk_bus_of(planner.old, found.old)
        if can_plug_disk(bus, family):
            planner.changes.old_disks.append(found.old)
        else:
            planner.bar(found.pointer, f"A {bus} disk can't be removed while the VM runs.")
        return
    disk: DiskSpec = found.new
    key, number, pointer = disk.key or "", number_of(disk.key or ""), found.pointer
    bus = disk_bus_of(planner.new, disk)
    started = _numbers(at_start.disks, lambda d: DISK_BUSES[disk_bus_of(at_start, d)].pci)
    elsewhere = _numbers(at_start.disks, lambda d: not DISK_BUSES[disk_bus_of(at_start, d)].pci)
    others = {*_numbers(planner.old.disks), *_numbers(planner.new.disks)} - {number}
    spare = at_start.hot_plug.disks
    if not can_plug_disk(bus, family):
        planner.bar(f"{pointer}/bus", f"A {bus} disk can't be added while the VM runs.")
    elif number not in (
        places := free_disk_numbers(
            bus, at_start=started, others=elsewhere, spare=spare, now=others
        )
    ):
        helps = [
            f"a disk on {other} needs none"
            for other in (DiskBus.VIRTIO_SCSI, DiskBus.USB)
            if (has_bus(at_start, other) if other is not DiskBus.USB else has_usb(at_start))
        ]
        planner.bar(f"{pointer}/key", _no_place(key, spare, places, helps))
    elif bus is DiskBus.USB and not has_usb(at_start):
        planner.bar(f"{pointer}/bus", NO_USB)
    elif bus is DiskBus.VIRTIO_SCSI and not has_bus(at_start, bus):
        planner.bar(f"{pointer}/bus", "The VM was started without a SCSI controller.")
    else:
        planner.changes.new_disks.append(disk)


def _plan_nic(planner: _Planner, found: Difference) -> None:
    """A NIC to add or remove."""
    family, at_start = planner.family, planner.at_start
    if found.new is None:
        model = nic_model_of(planner.old, found.old)
        if can_plug_nic(model, family):
            planner.changes.old_nics.append(found.old)
        else:
            planner.bar(
                found.pointer, f"A NIC of model {model} can't be removed while the VM runs."
            )
        return
    nic: NicSpec = found.new
    key, number = nic.key or "", number_of(nic.key or "")
    model = nic_model_of(planner.new, nic)
    started = _numbers(at_start.nics, lambda n: NIC_KINDS[nic_model_of(at_start, n)].express)
    elsewhere = _numbers(at_start.nics, lambda n: not NIC_KINDS[nic_model_of(at_start, n)].express)
    others = {*_numbers(planner.old.nics), *_numbers(planner.new.nics)} - {number}
    spare = at_start.hot_plug.nics
    places = free_nic_numbers(family, at_start=started, others=elsewhere, spare=spare, now=others)
    if not can_plug_nic(model, family):
        planner.bar(
            f"{found.pointer}/model", f"A NIC of model {model} can't be added while the VM runs."
        )
    elif number not in places:
        planner.bar(f"{found.pointer}/key", _no_place(key, spare, places, []))
    else:
        planner.changes.new_nics.append(nic)


def _no_place(key: str, spare: int, places: list[int], helps: list[str]) -> str:
    """Why there is no port for a device, and what helps."""
    kind = key.rstrip("0123456789")
    if places:
        able = ", ".join(f"{kind}{number}" for number in places)
        return f"The running machine has no port for {key}; it has one for {able}."
    ways = [
        *helps,
        "one that is removed frees its port",
        f"the next start has {spare} free ports (hot_plug.{kind}s)",
    ]
    return f"No port for {key} is free while the VM runs: {'; '.join(ways)}."


def _plan_medium(planner: _Planner, found: Difference) -> None:
    planner.changes.media += [cdrom for cdrom in planner.new.cdroms if cdrom.key == found.key]


def _plan_processors(planner: _Planner, found: Difference) -> None:
    more = found.new - found.old
    most = planner.old.cpus.max_count or planner.old.cpus.count
    if more < 0:
        planner.bar(found.pointer, "While the VM runs, vCPUs can only be added.")
    elif found.new > most:
        planner.bar(
            found.pointer, f"At most {most} are possible while the VM runs (cpus.max_count)."
        )
    planner.changes.cpus = max(0, more)


def _plan_memory(planner: _Planner, found: Difference) -> None:
    more = found.new - found.old
    most = planner.old.memory.max_bytes or planner.old.memory_bytes
    if more < 0:
        planner.bar(
            found.pointer,
            "While the VM runs, memory can only be added; memory.target_bytes reclaims some.",
        )
    elif found.new > most:
        planner.bar(
            found.pointer,
            f"At most {most} bytes are possible while the VM runs (memory.max_bytes).",
        )
    elif more % DIMM_STEP_BYTES:
        planner.bar(
            found.pointer, f"While the VM runs, memory grows by multiples of {DIMM_STEP_BYTES}."
        )
    planner.changes.memory_bytes = max(0, more)
    target = planner.new.memory.target_bytes
    if more and target is not None and target == planner.old.memory.target_bytes:
        # What the balloon takes is counted from all of the memory.
        again = Difference(_TARGET, "/spec/memory/target_bytes", target, target)
        _plan_setting(planner, again, SETTINGS[_TARGET], always=True)


def _plan_setting(
    planner: _Planner, found: Difference, setting: Setting, *, always: bool = False
) -> None:
    """A change by commands alone; nothing if QEMU sees no difference."""
    if why := setting.barred(planner.at_start, planner.new):
        planner.bar(found.pointer, why)
        return
    new = setting.commands(planner.new, found.key)
    if new and (always or new != setting.commands(planner.old, found.key)):
        planner.changes.settings.append(found)


_FOLLOWED: Mapping[str, Callable[[_Planner, Difference], None]] = {
    "disks[]": _plan_disk,
    "nics[]": _plan_nic,
    "cdroms[].image": _plan_medium,
    "cpus.count": _plan_processors,
    "memory_bytes": _plan_memory,
}
"""The plan for each live field that needs more than commands: a file, a tap, memory of the host,
the guest's consent. A key is that of its disk or NIC. The others are settings of devices
(`SETTINGS` in vmkernel/devices/registry.py)."""
