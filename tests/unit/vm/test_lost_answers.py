"""Changes of a running VM whose answers never come: whatever QEMU did, in the end its machine and
the stored spec say the same, also if the vmkernel is killed before it could look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.vm.plugging_story import update
from tests.unit.vm.test_repeated_hotplug import Strict as Devices
from tests.unit.vm.test_repeated_hotplug import _spec, story
from tests.unit.vm.world import World
from vmkernel.devices.disk import throttle_limits
from vmkernel.model import (
    CdromSpec,
    CpuSpec,
    DiskLimits,
    ErrorCode,
    HugePages,
    ImageFormat,
    MemorySpec,
    MicaError,
    NicSpec,
    Rate,
    VmSpec,
    WatchdogAction,
    WatchdogSpec,
)

MIB = 1 << 20
CPUS = 4


@dataclass
class Real:
    """What the machine is, by what it was told."""

    limits: dict[str, Any] = field(default_factory=lambda: throttle_limits(None))
    links: dict[str, bool] = field(default_factory=lambda: {"nic0": True})
    balloon: int = 256 * MIB
    watchdog: str = "none"
    cpus: int = 1
    dimms: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    tray_open: bool = False
    disc: str | None = "cdrom0-file-0"
    """The file node below the disc that is in the drive."""


class Machine(Devices):
    """A strict QEMU with all that can be changed while it runs."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.real = Real()
        self.nodes |= {"cdrom0-file-0": None, "cdrom0": "cdrom0-file-0"}
        self.qemu.replies |= {
            command: self._answer(command)
            for command in (
                "qom-set",
                "set_link",
                "balloon",
                "watchdog-set-action",
                "query-hotpluggable-cpus",
                "query-memory-devices",
                "query-block",
                "blockdev-open-tray",
                "blockdev-close-tray",
                "blockdev-remove-medium",
                "blockdev-insert-medium",
            )
        }

    def qom_set(self, arguments: Mapping[str, Any]) -> None:
        assert arguments["path"] == "/objects/disk0-limits"
        self.real.limits = arguments["value"]

    def set_link(self, arguments: Mapping[str, Any]) -> None:
        self.real.links[arguments["name"]] = arguments["up"]

    def balloon(self, arguments: Mapping[str, Any]) -> None:
        self.real.balloon = arguments["value"]

    def watchdog_set_action(self, arguments: Mapping[str, Any]) -> None:
        self.real.watchdog = arguments["action"]

    def object_add(self, arguments: Mapping[str, Any]) -> Any:
        self.real.sizes[arguments["id"]] = arguments.get("size", 0)
        return super().object_add(arguments)

    def device_add(self, arguments: Mapping[str, Any]) -> Any:
        if "core-id" in arguments:
            self.real.cpus += 1
        if arguments["driver"] == "pc-dimm":
            self.real.dimms[arguments["id"]] = self.real.sizes[arguments["memdev"]]
        return super().device_add(arguments)

    def query_hotpluggable_cpus(self, _: Mapping[str, Any]) -> Any:
        return [
            {"type": "cpu", "props": {"core-id": number}}
            | ({"qom-path": f"/machine/{number}"} if number < self.real.cpus else {})
            for number in range(CPUS)
        ]

    def query_memory_devices(self, _: Mapping[str, Any]) -> Any:
        return [
            {"type": "dimm", "data": {"id": name, "size": size}}
            for name, size in self.real.dimms.items()
        ]

    def query_block(self, _: Mapping[str, Any]) -> Any:
        return [{"qdev": "cdrom0"} | ({"inserted": {}} if self.real.disc else {})]

    def blockdev_open_tray(self, _: Mapping[str, Any]) -> None:
        self.real.tray_open = True

    def blockdev_close_tray(self, _: Mapping[str, Any]) -> None:
        self.real.tray_open = False

    def blockdev_remove_medium(self, _: Mapping[str, Any]) -> None:
        assert self.real.tray_open
        self.real.disc = None

    def blockdev_insert_medium(self, arguments: Mapping[str, Any]) -> None:
        assert self.real.tray_open
        assert self.real.disc is None
        self.real.disc = self.nodes[arguments["node-name"]]

    def holds(self, world: World, spec: VmSpec) -> bool:
        """True if the machine is what the spec says."""
        real, (disk,), (cdrom,) = self.real, spec.disks, spec.cdroms
        opaque = {text.split()[1]: text for text in self._opaque()}
        file = opaque.get(real.disc or "", "")
        if cdrom.image is None:
            disc = real.disc is None
        else:
            found = world.storage.image(cdrom.image).path.stat()
            given = file.endswith(f" {found.st_dev}:{found.st_ino}")
            disc = given or (real.disc == "cdrom0-file-0" and cdrom.image == "one")
        return (
            disc
            and real.limits == throttle_limits(disk.limits)
            and real.links["nic0"] is spec.nics[0].connected
            and (real.balloon == spec.memory.target_bytes or spec.memory.target_bytes is None)
            and (real.balloon >= 256 * MIB or spec.memory.target_bytes is not None)
            and spec.memory_bytes == 256 * MIB + sum(real.dimms.values())
            and spec.cpus.count == real.cpus
        )

    def _opaque(self) -> list[str]:
        return [self.qemu.opaque[number] for number in self.qemu.fdsets]


def _limited(spec: VmSpec) -> VmSpec:
    disk = replace(spec.disks[0], limits=DiskLimits(iops=Rate(per_s=100)))
    return replace(spec, disks=(disk,))


def _disc(image: str | None) -> Callable[[VmSpec], VmSpec]:
    return lambda spec: replace(spec, cdroms=(replace(spec.cdroms[0], image=image),))


def _target(spec: VmSpec) -> VmSpec:
    return replace(spec, memory=replace(spec.memory, target_bytes=128 * MIB))


def _acts(spec: VmSpec) -> VmSpec:
    assert spec.watchdog is not None
    return replace(spec, watchdog=replace(spec.watchdog, action=WatchdogAction.POWER_OFF))


CHANGES: dict[str, tuple[Callable[[VmSpec], VmSpec], tuple[str, ...]]] = {
    "limits": (_limited, ("qom-set",)),
    "cable": (
        lambda spec: replace(spec, nics=(replace(spec.nics[0], connected=False),)),
        ("set_link",),
    ),
    "target": (_target, ("balloon",)),
    "watchdog": (_acts, ("watchdog-set-action",)),
    "memory": (lambda spec: replace(spec, memory_bytes=512 * MIB), ("object-add", "device_add")),
    "processors": (
        lambda spec: replace(spec, cpus=replace(spec.cpus, count=3)),
        ("query-hotpluggable-cpus", "device_add"),
    ),
    "another disc": (
        _disc("two"),
        (
            "blockdev-open-tray",
            "blockdev-remove-medium",
            "blockdev-add",
            "blockdev-insert-medium",
            "blockdev-close-tray",
        ),
    ),
    "no disc": (_disc(None), ("blockdev-open-tray", "blockdev-remove-medium", "blockdev-del")),
}
LOST = [(change, command) for change, (_, commands) in CHANGES.items() for command in commands]
FIELDS: dict[str, Any] = {
    "memory_bytes": 256 * MIB,
    "memory": MemorySpec(max_bytes=1024 * MIB),
    "cpus": CpuSpec(count=1, max_count=CPUS),
    "nics": (NicSpec(),),
    "cdroms": (CdromSpec(image="one"),),
    "watchdog": WatchdogSpec(action=WatchdogAction.RESET),
}


def _tell(root: Path, tell: Callable[[World, Machine], Any]) -> None:
    async def whole(world: World, _: Devices) -> None:
        await tell(world, Machine(world))

    story(root, whole, before=_images, **FIELDS)


def _images(world: World) -> None:
    for name in ("one", "two"):
        world.storage.add_image(name, ImageFormat.ISO)


@pytest.mark.parametrize("restarted", [False, True], ids=["goes-on", "restarted"])
@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize(("change", "command"), LOST)
def test_the_spec_and_the_machine_agree_in_the_end(
    tmp_path: Path, change: str, command: str, done: bool, restarted: bool
) -> None:
    async def tell(world: World, machine: Machine) -> None:
        wanted = CHANGES[change][0](_spec(world))
        machine.lose[command] = done
        machine.always = restarted  # so that this vmkernel can't settle it
        with pytest.raises(MicaError) as caught:
            await update(
                world, **{name: getattr(wanted, name) for name in FIELDS}, disks=wanted.disks
            )
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        if restarted:
            machine.always = False
            machine.lose.clear()
            await world.restart()
        await world.until(lambda: machine.holds(world, _spec(world)))
        await update(world, **{name: getattr(wanted, name) for name in FIELDS}, disks=wanted.disks)
        assert _spec(world) == wanted
        assert machine.holds(world, wanted)

    _tell(tmp_path, tell)


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("command", ["object-add", "device_add"])
def test_memory_on_huge_pages_is_promised_as_it_was_taken(
    tmp_path: Path, command: str, done: bool
) -> None:
    """256 MiB come from the pool; what is added, or may be, from ordinary memory."""
    pool = tmp_path / "pools/hugepages-2048kB"
    pool.mkdir(parents=True)
    for name in ("free", "resv", "surplus", "nr", "nr_overcommit"):
        (pool / f"{name}_hugepages").write_text("0")
    (pool / "free_hugepages").write_text("128")

    async def tell(world: World, machine: Machine) -> None:
        began = world.host.admission.promised_bytes
        assert began < 256 * MIB
        (pool / "free_hugepages").write_text("0")
        machine.lose[command] = done
        machine.always = True
        with pytest.raises(MicaError):
            await update(world, memory_bytes=512 * MIB)
        machine.always = False
        machine.lose.clear()
        for _ in range(2):
            await world.restart()
            await world.until(lambda: machine.holds(world, _spec(world)))
            await world.quiet()
            added = sum(machine.real.dimms.values())
            promised = world.host.admission.promised_bytes
            assert began + added <= promised <= began + added + 2 * MIB

    async def whole(world: World, _: Devices) -> None:
        await tell(world, Machine(world))

    pages = {"memory": MemorySpec(max_bytes=1024 * MIB, huge_pages=HugePages.SIZE_2M)}
    story(tmp_path, whole, before=_images, **(FIELDS | pages))


@pytest.mark.parametrize("lost", [False, True], ids=["record", "no record"])
def test_a_vmkernel_that_comes_again_promises_what_vms_have(tmp_path: Path, lost: bool) -> None:
    async def tell(world: World, _: Machine) -> None:
        began = world.host.admission.promised_bytes
        assert began > 256 * MIB
        await world.operations.close()
        await world.vms.stop()
        if lost:
            world.host.folder("web").record.unlink()
        world.new_vmkernel()
        await world.vms.start()
        await world.until(lambda: world.host.admission.promised_bytes)
        assert world.host.admission.promised_bytes == began

    _tell(tmp_path, tell)
