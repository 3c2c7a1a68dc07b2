"""Where devices hang: Mica chooses the place of each, and a machine that is taken up from a memory
image has every device where it was, whatever came and went before."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.vm.fake_qemu import FakeQemu
from tests.unit.vm.world import World
from vmkernel.model import (
    CdromSpec,
    DiskBus,
    DiskSpec,
    HotPlugSpec,
    MemorySpec,
    NicSpec,
    OperationState,
    VmAction,
    VmSpec,
)

MIB = 1 << 20
PLACES = ("bus", "addr", "port", "scsi-id", "channel", "lun", "unit", "chassis")
"""What says where a device hangs. (A DIMM's place follows from the order of all DIMMs.)"""
BUSES = (DiskBus.USB, DiskBus.VIRTIO_SCSI, DiskBus.VIRTIO_BLK, DiskBus.NVME)
CHANGES = st.one_of(
    st.tuples(st.just("disk"), st.sampled_from(BUSES)),
    st.tuples(st.just("no disk"), st.integers(0, 9)),
    st.tuples(st.just("nic"), st.none()),
    st.tuples(st.just("no nic"), st.integers(0, 9)),
    st.tuples(st.sampled_from(("tablet", "keyboard")), st.booleans()),
    st.tuples(st.just("memory"), st.none()),
    st.tuples(st.just("suspend"), st.none()),
)


def _changed(spec: VmSpec, change: str, value: Any, volumes: Iterable[str]) -> VmSpec:
    match change:
        case "disk":
            used = {disk.volume for disk in spec.disks}
            free = next(volume for volume in volumes if volume not in used)
            return replace(spec, disks=(*spec.disks, DiskSpec(volume=free, bus=value)))
        case "no disk" if spec.disks:
            gone = spec.disks[value % len(spec.disks)]
            return replace(spec, disks=tuple(d for d in spec.disks if d is not gone))
        case "nic":
            return replace(spec, nics=(*spec.nics, NicSpec()))
        case "no nic" if spec.nics:
            gone_nic = spec.nics[value % len(spec.nics)]
            return replace(spec, nics=tuple(n for n in spec.nics if n is not gone_nic))
        case "memory" if spec.memory_bytes < 1024 * MIB:
            return replace(spec, memory_bytes=spec.memory_bytes + 128 * MIB)
        case "tablet" | "keyboard":
            return replace(spec, **{change: value})
    return spec


def _place(device: Mapping[str, Any]) -> dict[str, Any]:
    return {name: device[name] for name in PLACES if name in device}


def _at_start(qemu: FakeQemu) -> dict[str, dict[str, Any]]:
    devices = [json.loads(text) for text in qemu.request.arguments if text.startswith('{"driver"')]
    return {device["id"]: _place(device) for device in devices if "id" in device}


def _now(qemu: FakeQemu) -> dict[str, dict[str, Any]]:
    """The places of all devices that are there, from what QEMU was told."""
    found = _at_start(qemu)
    for command, arguments in qemu.commands:
        if command == "device_add":
            found[arguments["id"]] = _place(arguments)
        elif command == "device_del":
            del found[arguments["id"]]
    return found


def _tells_what_it_has(qemu: FakeQemu) -> None:
    """Let it answer what it was given: its DIMMs, and what else comes and goes."""

    def answer(_: Mapping[str, Any]) -> Any:
        given = [json.loads(text) for text in qemu.request.arguments if text.startswith("{")]
        added = [arguments for command, arguments in qemu.commands if command == "object-add"]
        sizes = {o["id"]: o["size"] for o in (*given, *added) if "size" in o and "id" in o}
        return [
            {"type": "dimm", "data": {"id": device, "size": sizes[f"{device}-memory"]}}
            for device in _now(qemu)
            if device.startswith("dimm")
        ]

    qemu.replies["query-memory-devices"] = answer
    qemu.devices |= {"tablet", "keyboard"} & set(_at_start(qemu))


async def _act(world: World, action: VmAction) -> None:
    operation = await world.act(action)
    assert operation.state is OperationState.SUCCEEDED, operation.error


async def _suspend_and_resume(world: World) -> None:
    before = _now(world.qemu())
    await _act(world, VmAction.SUSPEND)
    await _act(world, VmAction.RESUME)
    _tells_what_it_has(world.qemu())
    assert _at_start(world.qemu()) == before


async def _lives(root: Path, first: VmSpec, changes: Iterable[tuple[str, Any]]) -> None:
    world = World(root)
    volumes = [f"v{number}" for number in range(20)]
    for volume in volumes:
        world.storage.add_volume(volume)
    await world.vms.start()
    try:
        await world.create(
            disks=first.disks,
            cdroms=first.cdroms,
            nics=first.nics,
            tablet=first.tablet,
            keyboard=first.keyboard,
            hot_plug=HotPlugSpec(disks=8, nics=8),
            memory_bytes=256 * MIB,
            memory=MemorySpec(max_bytes=1024 * MIB),
        )
        await _act(world, VmAction.START)
        _tells_what_it_has(world.qemu())
        for change, value in changes:
            if change == "suspend":
                await _suspend_and_resume(world)
                continue
            vm = world.vms.inventory.get("web")
            spec = _changed(vm.spec, change, value, volumes)
            if len([d for d in spec.disks if d.bus is DiskBus.USB]) > 7:
                continue
            await world.vms.changes.update("web", spec, vm.revision, actor="me")
        await _suspend_and_resume(world)
    finally:
        await world.operations.close()
        await world.vms.stop()


FIRST = VmSpec(
    datastore="main",
    disks=(DiskSpec(volume="v0", bus=DiskBus.USB), DiskSpec(volume="v1", bus=DiskBus.VIRTIO_SCSI)),
    cdroms=(CdromSpec(bus=DiskBus.USB),),
    nics=(NicSpec(),),
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(CHANGES, min_size=1, max_size=10),
    st.booleans(),
)
def test_a_machine_wakes_with_every_device_where_it_was(
    changes: list[tuple[str, Any]], tablet: bool
) -> None:
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(_lives(Path(root), replace(FIRST, tablet=tablet), changes))


def test_usb_disks_that_came_and_went_leave_gaps(tmp_path: Path) -> None:
    """Without a tablet, the first free port is not one for disks: QEMU would have taken it."""
    usb, gone = ("disk", DiskBus.USB), ("no disk", 2)
    changes = [usb, usb, gone, ("suspend", None), usb, usb, ("no disk", 0), ("suspend", None), usb]
    asyncio.run(_lives(tmp_path, replace(FIRST, tablet=False), changes))
