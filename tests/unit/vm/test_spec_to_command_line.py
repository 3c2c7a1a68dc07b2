"""From specs to whole command lines: golden data for VMs as people have them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields, replace

from tests.unit.vm.spec_argv import LINKED, command_line
from vmkernel.devices import Accelerator, Family
from vmkernel.devices.topology import topology_of
from vmkernel.model import (
    BootDevice,
    BootSpec,
    CdromSpec,
    CloudInitSpec,
    CpuSpec,
    DiskBus,
    DiskLimits,
    DiskSpec,
    DisplayModel,
    Firmware,
    GuestOs,
    HotPlugSpec,
    HugePages,
    MemorySpec,
    NicModel,
    NicSpec,
    Rate,
    VmSpec,
    VsockSpec,
    WatchdogAction,
    WatchdogSpec,
)
from vmkernel.model.vm import SCOPES
from vmkernel.model.vm_hardware import Clock, ClockSpec, DiskCache, KernelBoot, WatchdogModel
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.spec.scope import without_host_fields
from vmkernel.vm.spec.validation import family_of

GOLDEN = Path(__file__).parent / "golden" / "specs"
GIB = 1 << 30
MAC = "52:54:00:00:00:0"

SPECS = {
    "nothing-given": VmSpec(datastore="main"),
    "linux": VmSpec(
        datastore="main",
        cpus=CpuSpec(count=2),
        memory_bytes=2 * GIB,
        disks=(DiskSpec(volume="root"), DiskSpec(volume="data")),
        cdroms=(CdromSpec(),),
        nics=(NicSpec(mac=f"{MAC}1"),),
    ),
    "windows": VmSpec(
        datastore="main",
        guest_os=GuestOs.WINDOWS,
        firmware=Firmware.UEFI_SECURE_BOOT,
        tpm=True,
        cpus=CpuSpec(count=4, cores=4),
        memory_bytes=4 * GIB,
        clock=ClockSpec(utc_offset_minutes=60),
        disks=(DiskSpec(volume="c"),),
        cdroms=(CdromSpec(image="windows-11"), CdromSpec(image="virtio-win")),
        nics=(NicSpec(mac=f"{MAC}1"),),
        boot=BootSpec(order=(BootDevice.CDROM, BootDevice.DISK)),
    ),
    "old-pc": VmSpec(
        datastore="main",
        firmware=Firmware.BIOS,
        disks=(
            DiskSpec(volume="c", bus=DiskBus.IDE),
            DiskSpec(volume="d", bus=DiskBus.SATA, cache=DiskCache.WRITEBACK),
            DiskSpec(volume="e"),
        ),
        cdroms=(CdromSpec(image="dos", bus=DiskBus.IDE),),
        nics=(
            NicSpec(model=NicModel.E1000, mac=f"{MAC}1"),
            NicSpec(model=NicModel.RTL8139, mac=f"{MAC}2"),
        ),
        keyboard=True,
        watchdog=WatchdogSpec(),
    ),
    "old-pc-cloud-init": VmSpec(
        datastore="main",
        firmware=Firmware.BIOS,
        disks=(DiskSpec(volume="c", bus=DiskBus.IDE),),
        nics=(NicSpec(mac=f"{MAC}1"),),
        cloud_init=CloudInitSpec(user="mica"),
    ),
    "cloud-init": VmSpec(
        datastore="main",
        disks=(DiskSpec(volume=LINKED),),
        cdroms=(CdromSpec(image="tools"),),
        nics=(NicSpec(mac=f"{MAC}1"),),
        display=DisplayModel.NONE,
        cloud_init=CloudInitSpec(hostname="web", user="mica"),
    ),
    "huge-pages": VmSpec(
        datastore="main",
        cpus=CpuSpec(count=8, max_count=16, sockets=2, cores=4, threads=2, model="EPYC-v4"),
        memory_bytes=8 * GIB,
        memory=MemorySpec(max_bytes=16 * GIB, huge_pages=HugePages.SIZE_1G),
    ),
    "no-balloon": VmSpec(
        datastore="main",
        memory=MemorySpec(balloon=False, huge_pages=HugePages.SIZE_2M),
        rng=False,
        guest_agent=False,
        tablet=False,
        serial_ports=0,
        display=DisplayModel.VIRTIO,
    ),
    "every-disk": VmSpec(
        datastore="main",
        disks=(
            DiskSpec(
                volume="limited",
                limits=DiskLimits(
                    read_iops=Rate(per_s=100, burst_per_s=500, burst_s=10),
                    bytes=Rate(per_s=1 << 20),
                ),
                cache=DiskCache.WRITETHROUGH,
            ),
            DiskSpec(volume="scsi", bus=DiskBus.VIRTIO_SCSI, read_only=True),
            DiskSpec(volume="nvme", bus=DiskBus.NVME, discard=False),
            DiskSpec(volume="sata", bus=DiskBus.SATA, cache=DiskCache.UNSAFE),
            DiskSpec(volume="usb", bus=DiskBus.USB, boot_index=1),
        ),
        cdroms=tuple(
            CdromSpec(image="cd", bus=bus)
            for bus in (DiskBus.SATA, DiskBus.VIRTIO_SCSI, DiskBus.USB)
        ),
    ),
    "every-nic": VmSpec(
        datastore="main",
        nics=tuple(
            NicSpec(mac=f"{MAC}{number}", model=model, port_group=f"group-{number}")
            for number, model in enumerate(NicModel)
        ),
        boot=BootSpec(order=(BootDevice.NETWORK,), menu_s=5),
        hot_plug=HotPlugSpec(disks=0, nics=0),
    ),
    "small-devices": VmSpec(
        datastore="main",
        serial_ports=4,
        keyboard=True,
        tpm=True,
        watchdog=WatchdogSpec(model=WatchdogModel.ITCO, action=WatchdogAction.INJECT_NMI),
        vsock=VsockSpec(cid=42),
        clock=ClockSpec(base=Clock.LOCAL, utc_offset_minutes=-90),
    ),
    "kernel": VmSpec(
        datastore="main",
        firmware=Firmware.BIOS,
        boot=BootSpec(kernel=KernelBoot(kernel="k", initrd="i", cmdline="console=ttyS0 a,b=c")),
    ),
    "keys-of-their-own": VmSpec(
        datastore="main",
        disks=(DiskSpec(volume="nine", key="disk9"), DiskSpec(volume="two", key="disk2")),
        cdroms=(CdromSpec(image="cd", key="cdrom3", boot_index=2),),
        nics=(NicSpec(mac=f"{MAC}1", key="nic12", boot_index=1),),
    ),
}
SWITCHES: dict[str, Any] = {
    info.name: not info.default
    for info in fields(VmSpec)
    if info.type is bool and SCOPES[info.name].guest
}
SPECS["every-switch-turned"] = VmSpec(datastore="main", **SWITCHES)
"""By reflection, so that a new switch gets into golden data."""
SPECS = {name: with_defaults(spec) for name, spec in SPECS.items()}

PLUGGED_IN = replace(
    SPECS["linux"],
    memory_bytes=2 * GIB + (256 << 20),
    memory=MemorySpec(max_bytes=4 * GIB),
    cpus=CpuSpec(count=3, max_count=4),
    disks=(*SPECS["linux"].disks, DiskSpec(volume="late", key="disk2", bus=DiskBus.VIRTIO_BLK)),
    nics=(NicSpec(mac=f"{MAC}2", key="nic1", model=NicModel.VIRTIO),),
)
"""What `linux` has become while it ran: a disk, a DIMM and a processor more, another card."""
STARTED = replace(
    SPECS["linux"], memory=PLUGGED_IN.memory, cpus=replace(SPECS["linux"].cpus, max_count=4)
)


def lines(words: list[str]) -> str:
    """One option a line."""
    found: list[str] = []
    for word in words:
        if word.startswith("-") or not found:
            found.append(word)
        else:
            found[-1] += f" {word}"
    return "\n".join(found) + "\n"


def check(name: str, words: list[str], update: bool) -> None:
    path = GOLDEN / f"{name}.txt"
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(words))
    assert lines(words) == path.read_text()


@pytest.mark.parametrize("name", sorted(SPECS))
def test_whole_command_line(name: str, update_golden: bool) -> None:
    """Every word; with MICA_UPDATE_GOLDEN=1 they are written, to be read in the diff."""
    spec = SPECS[name]
    check(name, command_line(spec, family=family_of(spec)), update_golden)


def test_whole_command_line_without_kvm_or_taps(update_golden: bool) -> None:
    """As `mica serve` starts it on a machine without KVM."""
    words = command_line(SPECS["linux"], accelerator=Accelerator.TCG, taps=False)
    check("linux-hosted", words, update_golden)


def test_whole_command_line_of_one_that_resumes(update_golden: bool) -> None:
    """Suspended after devices came and went: it starts with the ports of its first start."""
    topology = topology_of(without_host_fields(STARTED), dimms=((0, 256 << 20),))
    words = command_line(PLUGGED_IN, incoming=topology)
    check("resumed-after-hot-plug", words, update_golden)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_machine_resumes_as_it_was_started(name: str) -> None:
    """A memory image fits the same devices at the same places alone."""
    spec = SPECS[name]
    family = family_of(spec)
    started = command_line(spec, family=family)
    resumed = command_line(spec, family=family, incoming=topology_of(without_host_fields(spec)))
    place = resumed.index("-incoming")
    assert resumed[place : place + 2] == ["-incoming", "defer"]
    assert [*resumed[:place], *resumed[place + 2 :]] == started


@pytest.mark.parametrize("name", sorted(SPECS))
def test_no_new_order_of_the_list_moves_a_device_of_one_that_resumes(name: str) -> None:
    """Lists can be put in another order while a VM runs; its guest must find each disk where it
    was, or it would write to another."""
    spec = SPECS[name]
    family = family_of(spec)
    topology = topology_of(without_host_fields(spec))
    turned = replace(spec, disks=spec.disks[::-1], cdroms=spec.cdroms[::-1], nics=spec.nics[::-1])
    first, then = (command_line(s, family=family, incoming=topology) for s in (spec, turned))
    assert _places(first) == _places(then)


def test_what_went_leaves_its_place_free_on_usb() -> None:
    """The others stay where they are when a VM resumes."""
    disks = tuple(DiskSpec(volume=f"v{n}", key=f"disk{n}", bus=DiskBus.USB) for n in range(3))
    started = replace(SPECS["nothing-given"], disks=disks)
    words = command_line(
        replace(started, disks=disks[1:]), incoming=topology_of(without_host_fields(started))
    )
    before = _places(command_line(started))
    assert _places(words) == {key: place for key, place in before.items() if key != "disk0"}


def _places(words: list[str]) -> dict[str, tuple[Any, ...]]:
    """Where each device is, by its id."""
    devices = [json.loads(value) for option, value in pairwise(words) if option == "-device"]
    keys = ("bus", "addr", "unit", "port", "scsi_id", "lun", "drive")
    return {device["id"]: tuple(device.get(key) for key in keys) for device in devices}


@pytest.mark.parametrize("name", sorted(SPECS))
def test_promises(name: str) -> None:
    """What holds for every VM: QEMU opens no door, and no two devices have one place."""
    spec = SPECS[name]
    words = command_line(spec, family=family_of(spec))
    assert {"-nodefaults", "-no-user-config", "-S"} <= set(words)
    assert "unix:" not in " ".join(words)
    devices: list[dict[str, Any]] = [
        json.loads(value) for option, value in pairwise(words) if option == "-device"
    ]
    places = [(d["bus"], d["addr"]) for d in devices if "addr" in d]
    assert len(places) == len(set(places))
    ids = {d["id"]: d for d in devices}
    assert len(ids) == len(devices)
    for place, device in enumerate(devices):  # each controller is there before what hangs on it
        bus = device.get("bus", "pcie.0")
        before = {d["id"] for d in devices[:place]}
        own = {"pcie.0", "pci.0", *(f"ide.{unit}" for unit in range(6))}  # the chipset's
        assert bus in own or {bus, bus.rpartition(".")[0]} & before, device


def test_each_family_is_there() -> None:
    assert {family_of(spec) for spec in SPECS.values()} == set(Family)
