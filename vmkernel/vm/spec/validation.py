"""The checks of a VM's spec beyond its types; pointers name the field below `/spec`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Container
from functools import partial
from itertools import count
from typing import TypeVar

from msgspec.structs import replace

from vmkernel.devices import Family
from vmkernel.devices.defaults import CDROMS_MAX
from vmkernel.model import (
    DiskBus,
    ErrorCode,
    ImageFormat,
    MicaError,
    VmSpec,
    VsockSpec,
)
from vmkernel.storage.ports import Storage
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.spec.hardware import hardware_problems
from vmkernel.vm.spec.macs import mac_problem
from vmkernel.vm.spec.size import check_size

__all__ = [
    "check_references",
    "check_structure",
    "completed",
    "family_of",
]

_FIRST_CID = 3
"""Lower ones mean the hypervisor, this machine and the host (vsock(7))."""

Found = TypeVar("Found")


_OUI = "52:54:00"
"""The prefix, locally administered, that QEMU's guests carry everywhere."""


def family_of(spec: VmSpec) -> Family:
    """The chipset that a spec asks for: i440fx if IDE is used, else q35."""
    buses = {d.bus for d in spec.disks} | {c.bus for c in spec.cdroms}
    return Family.PC if DiskBus.IDE in buses else Family.Q35


def check_structure(spec: VmSpec, family: Family) -> None:
    """Limits of the virtual hardware; MicaError with every field that is wrong."""
    check_size(spec)
    if spec.cloud_init is not None:
        from vmkernel.vm.spec.cloud_init.documents import check_cloud_init

        check_cloud_init(spec.cloud_init)
        if len(spec.cdroms) >= CDROMS_MAX:
            raise MicaError.field(
                "/spec/cdroms", f"With cloud_init, at most {CDROMS_MAX - 1} drives are possible."
            )
    wrong = hardware_problems(spec, family)
    if wrong:
        raise MicaError(ErrorCode.INVALID, wrong[0].detail, fields=tuple(wrong))


def check_references(
    vm_id: str,
    spec: VmSpec,
    *,
    storage: Storage,
    vm_of_volume: Callable[[str], str | None],
    port_groups: Collection[str],
) -> None:
    """Everything that the spec names exists, is of the right kind and belongs to no other VM."""
    _lookup("/spec/datastore", partial(storage.vms_folder, spec.datastore))
    for index, disk in enumerate(spec.disks):
        pointer = f"/spec/disks/{index}/volume"
        _lookup(pointer, partial(storage.volume, disk.volume))
        owner = vm_of_volume(disk.volume)
        if owner not in (None, vm_id):
            raise MicaError.field(
                pointer, f"Volume {disk.volume} belongs to VM {owner}.", ErrorCode.IN_USE
            )
    for index, cdrom in enumerate(spec.cdroms):
        if cdrom.image is not None:
            _image(storage, f"/spec/cdroms/{index}/image", cdrom.image, ImageFormat.ISO)
    if spec.boot.kernel is not None:
        _image(
            storage, "/spec/boot/kernel/kernel", spec.boot.kernel.kernel, ImageFormat.LINUX_KERNEL
        )
        if spec.boot.kernel.initrd is not None:
            _image(
                storage,
                "/spec/boot/kernel/initrd",
                spec.boot.kernel.initrd,
                ImageFormat.LINUX_INITRD,
            )
    for index, nic in enumerate(spec.nics):
        if nic.port_group not in port_groups:
            raise MicaError.field(
                f"/spec/nics/{index}/port_group", f"There is no port group {nic.port_group}."
            )


def completed(
    spec: VmSpec,
    *,
    macs: Container[str],
    cids: Container[int],
    previous: VmSpec | None = None,
    host_macs: Container[str] = (),
) -> VmSpec:
    """The spec with nothing left open: defaults, keys, a MAC address for every NIC, a vsock CID.

    A NIC without an address keeps that of the NIC with its key, or gets a new unique one; `macs`
    and `cids` are those of all other VMs. MicaError if a given one is among them, or is the host's
    or reserved; a NIC keeps the address that it has.
    """
    spec = with_defaults(spec, previous)
    had = {nic.key: nic.mac for nic in previous.nics} if previous else {}
    for index, nic in enumerate(spec.nics):
        if nic.mac is None:
            continue
        pointer = f"/spec/nics/{index}/mac"
        if nic.mac in macs:
            detail = f"The MAC address {nic.mac} belongs to another VM."
            raise MicaError.field(pointer, detail, ErrorCode.IN_USE)
        if nic.mac in had.values():
            continue
        if nic.mac in host_macs:
            detail = f"The MAC address {nic.mac} is this host's own."
            raise MicaError.field(pointer, detail, ErrorCode.IN_USE)
        if (problem := mac_problem(nic.mac)) is not None:
            raise MicaError.field(pointer, problem)
    own = {nic.mac for nic in spec.nics if nic.mac is not None}
    nics = []
    for nic in spec.nics:
        mac = nic.mac
        if mac is None:
            old = had.get(nic.key)
            free = old is not None and old not in own and old not in macs
            mac = old if old is not None and free else _draw_mac(own, macs)
            own.add(mac)
        nics.append(replace(nic, mac=mac))
    return replace(spec, nics=tuple(nics), vsock=_with_cid(spec, cids, previous))


def _with_cid(spec: VmSpec, taken: Container[int], previous: VmSpec | None) -> VsockSpec | None:
    if spec.vsock is None:
        return None
    cid = spec.vsock.cid
    if cid is None and previous is not None and previous.vsock is not None:
        cid = previous.vsock.cid
    if cid is None:
        cid = next(number for number in count(_FIRST_CID) if number not in taken)
    elif cid in taken:
        raise MicaError.field(
            "/spec/vsock/cid", f"The CID {cid} belongs to another VM.", ErrorCode.IN_USE
        )
    return replace(spec.vsock, cid=cid)


def _draw_mac(*used: Container[str]) -> str:
    while True:
        octets = secrets.token_bytes(3)
        mac = f"{_OUI}:{octets[0]:02x}:{octets[1]:02x}:{octets[2]:02x}"
        if not any(mac in some for some in used):
            return mac


def _image(storage: Storage, pointer: str, image: str, wanted: ImageFormat) -> None:
    found = _lookup(pointer, partial(storage.image, image))
    if found.format is not wanted:
        raise MicaError.field(pointer, f"Image {image} is {found.format}, not {wanted}.")


def _lookup(pointer: str, find: Callable[[], Found]) -> Found:
    """The result of `find`; a failure names the field."""
    try:
        return find()
    except MicaError as error:
        problem = error.problem
        code = ErrorCode.INVALID if problem.code is ErrorCode.NOT_FOUND else problem.code
        raise MicaError.field(pointer, problem.detail, code) from error
