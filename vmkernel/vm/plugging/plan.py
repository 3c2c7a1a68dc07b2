"""What must be done to a running VM so that it becomes what is wanted; pure.

field                       while it runs
disks                       come and go on buses that can (virtio-blk and NVMe on q35, SCSI, USB)
disks: limits               set
disks, nics: boot_index, boot.order, boot.menu_s    count from the next start
cdroms: image               changed, or ejected by null
nics                        come and go (PCI Express; any card on pc)
nics: connected             set
cpus.count                  grows up to max_count
memory_bytes                grows up to memory.max_bytes, by DIMMs
memory.target_bytes         set (balloon)
watchdog.action             set
tablet, keyboard            come and go where there is a USB controller
everything else             needs a VM that is off
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from vmkernel.devices import DISK_BUSES, Family
from vmkernel.devices.hotplug import (
    can_plug_disk,
    can_plug_nic,
    free_disk_numbers,
    free_nic_numbers,
)
from vmkernel.devices.memory import DIMM_STEP_BYTES
from vmkernel.devices.nic import NIC_KINDS
from vmkernel.devices.plan import number_of
from vmkernel.model import (
    CdromSpec,
    DiskBus,
    DiskLimits,
    DiskSpec,
    DisplayModel,
    ErrorCode,
    FieldProblem,
    MicaError,
    NicSpec,
    VmSpec,
    WatchdogAction,
)
from vmkernel.vm.spec_defaults import disk_bus_of, has_bus, has_usb, nic_model_of

__all__ = ["Changes", "plan_changes"]

Keyed = TypeVar("Keyed", DiskSpec, CdromSpec, NicSpec)

_STOP = "It can't change while the VM runs: shut the VM down first."


@dataclass
class Changes:
    """The steps, in the order of these fields; a removal comes last, because it needs the guest's
    consent and can't be taken back."""

    new_disks: list[DiskSpec] = field(default_factory=list)
    new_nics: list[NicSpec] = field(default_factory=list)
    new_usb: list[str] = field(default_factory=list)
    """`tablet`, `keyboard`."""
    limits: list[DiskSpec] = field(default_factory=list)
    links: list[NicSpec] = field(default_factory=list)
    media: list[CdromSpec] = field(default_factory=list)
    watchdog: WatchdogAction | None = None
    cpus: int = 0
    """How many more."""
    memory_bytes: int = 0
    """How much more."""
    balloon_bytes: int | None = None
    """What the guest shall keep."""
    old_usb: list[str] = field(default_factory=list)
    old_nics: list[NicSpec] = field(default_factory=list)
    old_disks: list[DiskSpec] = field(default_factory=list)


def plan_changes(
    old: VmSpec,
    new: VmSpec,
    *,
    at_start: VmSpec,
    family: Family,
    free: Collection[str],
) -> Changes:
    """The way from one complete spec to another; `conflict` with every field that bars it.

    `at_start` is what the machine was started with, which says what has a port; `free` names the
    fields that QEMU has nothing to do with.
    """
    changes = Changes()
    wrong: list[FieldProblem] = []
    _plan_disks(changes, wrong, old, new, at_start, family)
    _plan_nics(changes, wrong, old, new, at_start, family)
    _plan_cdroms(changes, wrong, old, new)
    _plan_processors(changes, wrong, old, new)
    _plan_memory(changes, wrong, old, new)
    _plan_usb(changes, wrong, old, new, at_start)
    if old.watchdog is not None and new.watchdog is not None:
        if new.watchdog.action is not old.watchdog.action:
            changes.watchdog = new.watchdog.action
        if new.watchdog.model is not old.watchdog.model:
            wrong.append(_bar("/spec/watchdog/model"))
    elif old.watchdog != new.watchdog:
        wrong.append(_bar("/spec/watchdog"))
    if old.boot.kernel != new.boot.kernel:
        wrong.append(_bar("/spec/boot/kernel"))
    handled = {
        *("disks", "nics", "cdroms", "cpus", "memory_bytes", "memory"),
        *("tablet", "keyboard", "watchdog", "boot"),
    }
    for info in msgspec.structs.fields(VmSpec):
        name = info.name
        if name in handled or name in free:
            continue
        if getattr(old, name) != getattr(new, name):
            wrong.append(_bar(f"/spec/{name}"))
    if wrong:
        raise MicaError(ErrorCode.CONFLICT, wrong[0].detail, fields=tuple(wrong))
    return changes


def _bar(pointer: str, why: str = _STOP) -> FieldProblem:
    return FieldProblem(pointer=pointer, detail=why)


def _by_key(items: tuple[Keyed, ...]) -> dict[str, Keyed]:
    return {item.key or "": item for item in items}


def _places(items: tuple[Keyed, ...]) -> Iterator[tuple[str, Keyed, int]]:
    for index, item in enumerate(items):
        yield item.key or "", item, index


def _differing(old: Any, new: Any, settable: Collection[str]) -> list[str]:
    return [
        info.name
        for info in msgspec.structs.fields(type(old))
        if info.name not in settable and getattr(old, info.name) != getattr(new, info.name)
    ]


def _numbers(items: tuple[Keyed, ...], wanted: Callable[[Keyed], bool]) -> list[int]:
    return [number_of(item.key) for item in items if item.key and wanted(item)]


def _plan_disks(
    changes: Changes,
    wrong: list[FieldProblem],
    old: VmSpec,
    new: VmSpec,
    at_start: VmSpec,
    family: Family,
) -> None:
    before, after = _by_key(old.disks), _by_key(new.disks)
    now = [number_of(key) for key in {*before, *after} if key]
    started = _numbers(at_start.disks, lambda d: DISK_BUSES[disk_bus_of(at_start, d)].pci)
    elsewhere = _numbers(at_start.disks, lambda d: not DISK_BUSES[disk_bus_of(at_start, d)].pci)
    for key, disk, index in _places(new.disks):
        pointer = f"/spec/disks/{index}"
        known = before.get(key)
        if known is not None:
            wrong += [
                _bar(
                    f"{pointer}/{name}",
                    f"It can't change while the VM runs: remove the disk {key} first,"
                    " then add it anew.",
                )
                for name in _differing(known, disk, ("limits", "boot_index"))
            ]
            if (known.limits or DiskLimits()) != (disk.limits or DiskLimits()):
                changes.limits.append(disk)
            continue
        bus = disk_bus_of(new, disk)
        others = [number for number in now if number != number_of(key)]
        if not can_plug_disk(bus, family):
            wrong.append(_bar(f"{pointer}/bus", f"A {bus} disk can't be added while the VM runs."))
        elif number_of(key) not in (
            places := free_disk_numbers(
                bus,
                at_start=started,
                others=elsewhere,
                spare=at_start.hot_plug.disks,
                now=others,
            )
        ):
            helps = [
                f"a disk on {other} needs none"
                for other in (DiskBus.VIRTIO_SCSI, DiskBus.USB)
                if (has_bus(at_start, other) if other is not DiskBus.USB else has_usb(at_start))
            ]
            wrong.append(_no_place(f"{pointer}/key", key, at_start.hot_plug.disks, places, helps))
        elif bus is DiskBus.USB and not has_usb(at_start):
            wrong.append(_bar(f"{pointer}/bus", "The VM was started without a USB controller."))
        elif bus is DiskBus.VIRTIO_SCSI and not has_bus(at_start, bus):
            wrong.append(_bar(f"{pointer}/bus", "The VM was started without a SCSI controller."))
        else:
            changes.new_disks.append(disk)
    for key, disk, _ in _places(old.disks):
        if key not in after:
            bus = disk_bus_of(old, disk)
            if can_plug_disk(bus, family):
                changes.old_disks.append(disk)
            else:
                wrong.append(
                    _bar("/spec/disks", f"A {bus} disk can't be removed while the VM runs.")
                )


def _plan_nics(
    changes: Changes,
    wrong: list[FieldProblem],
    old: VmSpec,
    new: VmSpec,
    at_start: VmSpec,
    family: Family,
) -> None:
    before, after = _by_key(old.nics), _by_key(new.nics)
    now = [number_of(key) for key in {*before, *after} if key]
    started = _numbers(at_start.nics, lambda n: NIC_KINDS[nic_model_of(at_start, n)].express)
    elsewhere = _numbers(at_start.nics, lambda n: not NIC_KINDS[nic_model_of(at_start, n)].express)
    for key, nic, index in _places(new.nics):
        pointer = f"/spec/nics/{index}"
        known = before.get(key)
        if known is not None:
            wrong += [
                _bar(
                    f"{pointer}/{name}",
                    f"It can't change while the VM runs: remove the card {key} first,"
                    " then add it anew.",
                )
                for name in _differing(known, nic, ("connected", "boot_index"))
            ]
            if known.connected is not nic.connected:
                changes.links.append(nic)
            continue
        model = nic_model_of(new, nic)
        others = [number for number in now if number != number_of(key)]
        places = free_nic_numbers(
            family,
            at_start=started,
            others=elsewhere,
            spare=at_start.hot_plug.nics,
            now=others,
        )
        if not can_plug_nic(model, family):
            wrong.append(
                _bar(f"{pointer}/model", f"A card {model} can't be added while the VM runs.")
            )
        elif number_of(key) not in places:
            wrong.append(_no_place(f"{pointer}/key", key, at_start.hot_plug.nics, places, []))
        else:
            changes.new_nics.append(nic)
    for key, nic, _ in _places(old.nics):
        if key not in after:
            model = nic_model_of(old, nic)
            if can_plug_nic(model, family):
                changes.old_nics.append(nic)
            else:
                wrong.append(
                    _bar("/spec/nics", f"A card {model} can't be removed while the VM runs.")
                )


def _no_place(
    pointer: str, key: str, spare: int, places: list[int], helps: list[str]
) -> FieldProblem:
    """Why there is no port for a device, and what helps."""
    kind = key.rstrip("0123456789")
    if places:
        able = ", ".join(f"{kind}{number}" for number in places)
        return _bar(pointer, f"The running machine has no port for {key}; it has one for {able}.")
    ways = [
        *helps,
        "one that is removed frees its port",
        f"the next start has {spare} free ports (hot_plug.{kind}s)",
    ]
    return _bar(pointer, f"No port for {key} is free while the VM runs: {'; '.join(ways)}.")


def _plan_cdroms(changes: Changes, wrong: list[FieldProblem], old: VmSpec, new: VmSpec) -> None:
    before, after = _by_key(old.cdroms), _by_key(new.cdroms)
    if before.keys() - after.keys():
        wrong.append(_bar("/spec/cdroms", "A drive can't be removed while the VM runs; eject it."))
    for key, cdrom, index in _places(new.cdroms):
        known = before.get(key)
        if known is None:
            wrong.append(_bar(f"/spec/cdroms/{index}", "A drive can't be added while the VM runs."))
            continue
        wrong += [
            _bar(f"/spec/cdroms/{index}/{name}")
            for name in _differing(known, cdrom, ("image", "boot_index"))
        ]
        if known.image != cdrom.image:
            changes.media.append(cdrom)


def _plan_processors(changes: Changes, wrong: list[FieldProblem], old: VmSpec, new: VmSpec) -> None:
    more = new.cpus.count - old.cpus.count
    wrong += [_bar(f"/spec/cpus/{name}") for name in _differing(old.cpus, new.cpus, ("count",))]
    if more < 0:
        wrong.append(_bar("/spec/cpus/count", "Processors are only added while the VM runs."))
    elif new.cpus.count > (old.cpus.max_count or old.cpus.count):
        wrong.append(
            _bar(
                "/spec/cpus/count",
                f"At most {old.cpus.max_count or old.cpus.count} are possible while the VM runs"
                " (cpus.max_count).",
            )
        )
    changes.cpus = max(0, more)


def _plan_memory(changes: Changes, wrong: list[FieldProblem], old: VmSpec, new: VmSpec) -> None:
    more = new.memory_bytes - old.memory_bytes
    most = old.memory.max_bytes or old.memory_bytes
    pointer = "/spec/memory_bytes"
    if more < 0:
        wrong.append(
            _bar(pointer, "Memory is only added while the VM runs; memory.target_bytes takes some.")
        )
    elif new.memory_bytes > most and more:
        wrong.append(
            _bar(
                pointer, f"At most {most} bytes are possible while the VM runs (memory.max_bytes)."
            )
        )
    elif more % DIMM_STEP_BYTES:
        wrong.append(
            _bar(pointer, f"While the VM runs, memory grows by multiples of {DIMM_STEP_BYTES}.")
        )
    changes.memory_bytes = max(0, more)
    wrong += [
        _bar(f"/spec/memory/{name}")
        for name in _differing(old.memory, new.memory, ("target_bytes",))
    ]
    if new.memory.target_bytes != old.memory.target_bytes or (more and new.memory.target_bytes):
        if new.memory.balloon:
            changes.balloon_bytes = new.memory.target_bytes or new.memory_bytes
        else:
            wrong.append(_bar("/spec/memory/target_bytes", "The VM has no balloon."))


def _plan_usb(
    changes: Changes, wrong: list[FieldProblem], old: VmSpec, new: VmSpec, at_start: VmSpec
) -> None:
    for name in ("tablet", "keyboard"):
        was, is_wanted = getattr(old, name), getattr(new, name)
        if was == is_wanted:
            continue
        if not has_usb(at_start):
            wrong.append(_bar(f"/spec/{name}", "The VM was started without a USB controller."))
        elif name == "tablet" and new.display is DisplayModel.NONE:
            continue
        elif is_wanted:
            changes.new_usb.append(name)
        else:
            changes.old_usb.append(name)
