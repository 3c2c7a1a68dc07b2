"""Disks and CD-ROM drives: command line, checks of specs, limits.

Each bus is a module (disk_<bus>.py, listed in disk_buses.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vmkernel.devices.arguments import Command
from vmkernel.devices.defaults import SEED_BUS, disk_bus_of
from vmkernel.devices.device import Board, Device, Setting, duplicate_problems
from vmkernel.devices.disk import (
    IOTHREAD,
    add_cdrom_nodes,
    add_disk_nodes,
    cdrom_unit,
    disk_unit,
    limits_group,
    throttle_limits,
)
from vmkernel.devices.disk_buses import DISK_BUSES
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.devices.slots import PCI_DISKS_MAX
from vmkernel.model import DiskBus, DiskCache, DiskLimits, FieldError, Rate, VmSpec

__all__ = ["DISKS"]


def _add(board: Board, plan: MachinePlan) -> None:
    args, order = board.args, board.order
    args.object("iothread", IOTHREAD)
    topology = board.topology
    assert topology is not None, "a disk that is plugged in comes by itself (hotplug.py)"
    for bus in DiskBus:
        controllers = DISK_BUSES[bus].controllers
        if bus in topology.buses and controllers is not None:
            controllers(board)
    came: Counter[DiskBus] = Counter()

    def position(bus: DiskBus, key: str) -> int:
        found = topology.position(bus, key, came[bus])
        came[bus] += (bus, key) not in topology.units
        return found

    for disk in plan.disks:
        add_disk_nodes(args, disk)
        unit = disk_unit(disk, position(disk.bus, disk.key), order.get(disk.key))
        DISK_BUSES[disk.bus].unit(board, unit)
    for cdrom in plan.cdroms:
        if cdrom.path is not None:
            add_cdrom_nodes(args, cdrom)
        unit = cdrom_unit(cdrom, position(cdrom.bus, cdrom.key), order.get(cdrom.key))
        DISK_BUSES[cdrom.bus].unit(board, unit)


def _check(spec: VmSpec, family: Family) -> Iterator[FieldError]:
    yield from _bus_problems(spec, family)
    yield from _disk_problems(spec)
    yield from duplicate_problems(
        "The volume {} is named twice.",
        ((f"/spec/disks/{i}/volume", d.volume) for i, d in enumerate(spec.disks)),
    )


def _bus_problems(spec: VmSpec, family: Family) -> list[FieldError]:
    wrong: list[FieldError] = []
    units: Counter[DiskBus] = Counter()
    pci_disks = 0
    places = [
        (f"/spec/disks/{i}/bus", disk_bus_of(spec, d), False) for i, d in enumerate(spec.disks)
    ]
    places += [(f"/spec/cdroms/{i}/bus", c.bus, True) for i, c in enumerate(spec.cdroms)]
    if spec.cloud_init is not None:
        places.append(("/spec/cloud_init", SEED_BUS, True))
    for pointer, bus, cdrom in places:
        kind = DISK_BUSES[bus]
        units[bus] += 1
        pci_disks += kind.pci
        limit = kind.units_max(family)
        if cdrom and not kind.cdroms:
            wrong.append(
                FieldError(pointer=pointer, detail=f"A CD-ROM drive can't use the bus {bus}.")
            )
        elif limit == 0:
            wrong.append(
                FieldError(
                    pointer=pointer,
                    detail=f"This VM's machine ({family}) has no {bus}; create a new VM for it.",
                )
            )
        elif units[bus] > limit:
            wrong.append(
                FieldError(
                    pointer=pointer, detail=f"At most {limit} devices can use the bus {bus}."
                )
            )
        elif kind.pci and pci_disks > PCI_DISKS_MAX[family]:
            wrong.append(
                FieldError(
                    pointer=pointer,
                    detail=f"At most {PCI_DISKS_MAX[family]} disks are PCI devices on {family}.",
                )
            )
    return wrong


def _disk_problems(spec: VmSpec) -> Iterator[FieldError]:
    for index, disk in enumerate(spec.disks):
        bus = disk_bus_of(spec, disk)
        kind, pointer = DISK_BUSES[bus], f"/spec/disks/{index}"
        if disk.read_only and not kind.read_only:
            yield FieldError(
                pointer=f"{pointer}/read_only", detail=f"A disk on {bus} can't be read-only."
            )
        if disk.cache is DiskCache.WRITETHROUGH and not kind.write_through:
            yield FieldError(
                pointer=f"{pointer}/cache",
                detail=f"A disk on {bus} always has a write cache, which the guest flushes.",
            )
        if disk.limits is not None:
            yield from _limit_problems(f"{pointer}/limits", disk.limits)


def _limit_problems(pointer: str, limits: DiskLimits) -> Iterator[FieldError]:
    for kind in ("iops", "bytes"):
        parts = [f"{way}_{kind}" for way in ("read", "write")]
        if getattr(limits, kind) is not None:
            for name in parts:
                if getattr(limits, name) is not None:
                    yield FieldError(
                        pointer=f"{pointer}/{name}",
                        detail=f"Set either `{kind}` or a limit for each direction, not both.",
                    )
        for name in (kind, *parts):
            rate: Rate | None = getattr(limits, name)
            if rate is not None and rate.burst_per_s is not None:
                if rate.burst_per_s < rate.per_s:
                    yield FieldError(
                        pointer=f"{pointer}/{name}/burst_per_s",
                        detail="A burst can't be slower than the limit, `per_s`.",
                    )
            elif rate is not None and rate.burst_s != 1:
                yield FieldError(
                    pointer=f"{pointer}/{name}/burst_s",
                    detail="Set `burst_per_s` as well, or omit this.",
                )


def _limits(spec: VmSpec, key: str | None) -> list[Command]:
    return [
        (
            "qom-set",
            {
                "path": f"/objects/{limits_group(disk.key)}",
                "property": "limits",
                "value": throttle_limits(disk.limits),
            },
        )
        for disk in spec.disks
        if disk.key is not None and disk.key == key
    ]


DISKS = Device(add=_add, check=_check, settings={"disks[].limits": Setting(_limits)})
