"""What a spec leaves open, filled in: buses, models and the clock by the guest's system, keys by
what is free. A stored spec is complete, so that a later Mica with other defaults changes no guest.

                    linux, other windows disks, NICs        vmkernel/devices/defaults.py
clock               utc               local
CD-ROM drives       as given          and one with the image `virtio-win`, if there is one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from vmkernel.devices.defaults import CDROMS_MAX, disk_bus_of, nic_model_of
from vmkernel.model import (
    CdromSpec,
    Clock,
    DiskSpec,
    GuestOs,
    MicaError,
    NicSpec,
    VmSpec,
)
from vmkernel.vm.spec.macs import normal_mac

__all__ = [
    "VIRTIO_WIN",
    "with_defaults",
    "with_drivers",
]

VIRTIO_WIN = "virtio-win"
"""The id of the image with drivers for Windows; a new VM for it gets a drive with that."""

Keyed = TypeVar("Keyed", DiskSpec, CdromSpec, NicSpec)


def with_defaults(spec: VmSpec, previous: VmSpec | None = None) -> VmSpec:
    """The spec with nothing left open but addresses.

    A disk without a key keeps the one that its volume had; a drive or card without one keeps that
    of its place in the list; whatever is new gets the lowest number that is free.
    """
    old_disks = {disk.volume: disk.key for disk in previous.disks} if previous else {}
    disks = _with_keys("disk", spec.disks, [old_disks.get(disk.volume) for disk in spec.disks])
    cdroms = _with_keys("cdrom", spec.cdroms, _keys(previous.cdroms) if previous else [])
    nics = _with_keys("nic", spec.nics, _keys(previous.nics) if previous else [])
    clock = spec.clock
    if clock.base is None:
        base = Clock.LOCAL if spec.guest_os is GuestOs.WINDOWS else Clock.UTC
        clock = replace(clock, base=base)
    return replace(
        spec,
        clock=clock,
        disks=tuple(replace(disk, bus=disk_bus_of(spec, disk)) for disk in disks),
        cdroms=cdroms,
        nics=tuple(
            replace(
                nic,
                model=nic_model_of(spec, nic),
                mac=None if nic.mac is None else normal_mac(nic.mac),
            )
            for nic in nics
        ),
    )


def with_drivers(spec: VmSpec, image: Callable[[str], object]) -> VmSpec:
    """A new VM's spec: one for Windows gets a CD-ROM drive with the drivers, if `image` knows the
    image and no drive holds it already.
    """
    held = {cdrom.image for cdrom in spec.cdroms}
    if spec.guest_os is not GuestOs.WINDOWS or VIRTIO_WIN in held or len(spec.cdroms) >= CDROMS_MAX:
        return spec
    try:
        image(VIRTIO_WIN)
    except MicaError:
        return spec
    return replace(spec, cdroms=(*spec.cdroms, CdromSpec(image=VIRTIO_WIN)))


def _keys(items: Iterable[CdromSpec | NicSpec]) -> list[str | None]:
    return [item.key for item in items]


def _with_keys(kind: str, items: tuple[Keyed, ...], old: Sequence[str | None]) -> tuple[Keyed, ...]:
    taken = {item.key for item in items}
    done = []
    for index, item in enumerate(items):
        key = item.key
        if key is None:
            key = old[index] if index < len(old) else None
            if key is None or key in taken:
                number = 0
                while (key := f"{kind}{number}") in taken:
                    number += 1
            taken.add(key)
            item = replace(item, key=key)
        done.append(item)
    return tuple(done)
