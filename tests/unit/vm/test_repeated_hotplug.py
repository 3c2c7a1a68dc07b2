"""Changes of a running VM whose answers are lost, or that QEMU finishes late.

The QEMU here refuses what it has already and what is in use: a later change must get through, and
the spec be true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vm.plugging_story import plugging_story, update
from tests.unit.vm.world import World
from vmkernel.model import (
    DiskSpec,
    ErrorCode,
    MemorySpec,
    MicaError,
    NicSpec,
    VmAction,
    VmSpec,
    VmState,
)
from vmkernel.qemu import (
    DeviceGone,
    DeviceKept,
    Paused,
    QmpCommandError,
    QmpLostError,
    ReportsMissed,
    RunState,
)
from vmkernel.vm.store.launch_record import read_record

MIB = 1 << 20
_LOST = "no answer within 30 s"


class Strict:
    """The devices, nodes and objects of a fake QEMU."""

    def __init__(self, world: World) -> None:
        self.qemu = world.qemu()
        self.nodes: dict[str, str | None] = {}
        """Node -> the one below it."""
        self.objects: set[str] = set()
        self.netdevs: set[str] = set()
        self.lose: dict[str, bool] = {}
        """Command -> whether it is carried out; its answer never comes."""
        self.always = False
        """True while this is so for every such command, not for the next one only."""
        self.busy: set[str] = set()
        """Nodes that something in QEMU still uses."""
        for command in (
            "blockdev-add",
            "blockdev-del",
            "object-add",
            "object-del",
            "netdev_add",
            "netdev_del",
            "device_add",
            "query-blockstats",
            "qom-list",
        ):
            self.qemu.replies[command] = self._answer(command)

    def _answer(self, command: str) -> Callable[[Mapping[str, Any]], Any]:
        def answer(arguments: Mapping[str, Any]) -> Any:
            lost = command in self.lose
            carried_out = self.lose.get(command, True)
            if not self.always:
                self.lose.pop(command, None)
            result = None
            if carried_out:
                result = getattr(self, command.replace("-", "_"))(arguments)
            return QmpLostError(_LOST) if lost else result

        return answer

    def blockdev_add(self, arguments: Mapping[str, Any]) -> Any:
        name = arguments["node-name"]
        if name in self.nodes:
            return QmpCommandError(f"Duplicate nodes with node-name='{name}'")
        below = arguments.get("file")
        if below is not None and below not in self.nodes:
            return QmpCommandError(f"Cannot find device='' nor node-name='{below}'")
        group = arguments.get("throttle-group")
        if group is not None and group not in self.objects:
            return QmpCommandError(f"Throttle group '{group}' does not exist")
        self.nodes[name] = below
        return None

    def blockdev_del(self, arguments: Mapping[str, Any]) -> Any:
        name = arguments["node-name"]
        if name not in self.nodes:
            return QmpCommandError(f"Failed to find node with node-name='{name}'")
        if name in self.busy or name in self.nodes.values() or name in self.qemu.devices:
            return QmpCommandError(f"Node {name} is in use")
        del self.nodes[name]
        return None

    def object_add(self, arguments: Mapping[str, Any]) -> Any:
        name = arguments["id"]
        if name in self.objects:
            return QmpCommandError(f"attempt to add duplicate property '{name}' to object")
        self.objects.add(name)
        return None

    def object_del(self, arguments: Mapping[str, Any]) -> Any:
        name = arguments["id"]
        if name not in self.objects:
            return QmpCommandError(f"object '{name}' not found")
        user = name.removesuffix("-limits").removesuffix("-memory")
        if user in self.nodes or user in self.qemu.devices:
            return QmpCommandError(f"object '{name}' is in use, can not be deleted")
        self.objects.remove(name)
        return None

    def netdev_add(self, arguments: Mapping[str, Any]) -> Any:
        if arguments["id"] in self.netdevs:
            return QmpCommandError(f"Duplicate ID '{arguments['id']}' for netdev")
        self.netdevs.add(arguments["id"])
        return None

    def netdev_del(self, arguments: Mapping[str, Any]) -> Any:
        if arguments["id"] not in self.netdevs:
            return QmpCommandError("Device not found")
        self.netdevs.remove(arguments["id"])
        return None

    def device_add(self, arguments: Mapping[str, Any]) -> Any:
        if arguments["id"] in self.qemu.devices:
            return QmpCommandError(f"Duplicate device ID '{arguments['id']}'")
        self.qemu.devices.add(arguments["id"])
        return None

    def query_blockstats(self, _: Mapping[str, Any]) -> Any:
        def tree(name: str) -> dict[str, Any]:
            below = self.nodes[name]
            return {"node-name": name} | ({"parent": tree(below)} if below is not None else {})

        return [tree(name) for name in self.nodes]

    def qom_list(self, arguments: Mapping[str, Any]) -> Any:
        names = self.objects if arguments["path"] == "/objects" else self.qemu.devices
        return [{"name": name, "type": "child"} for name in sorted(names)]

    def rest_of(self, key: str) -> set[str]:
        """What QEMU has of a disk or card beside its device."""
        return {
            name
            for name in (*self.nodes, *self.objects, *self.netdevs)
            if name == key or name.startswith((f"{key}-", f"{key}."))
        }


def story(
    root: Path,
    tell: Callable[[World, Strict], Awaitable[None]],
    before: Callable[[World], None] = lambda _: None,
    **fields: Any,
) -> None:
    plugging_story(root, Strict, tell, before, **fields)


def _spec(world: World) -> VmSpec:
    return world.vms.inventory.get("web").spec


BOTH = (DiskSpec(volume="a"), DiskSpec(volume="b"))


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("command", ["blockdev-add", "object-add", "device_add"])
def test_a_disk_whose_answer_is_lost(tmp_path: Path, command: str, done: bool) -> None:
    """The spec says what QEMU has, and the next try gets through."""

    async def tell(world: World, qemu: Strict) -> None:
        qemu.lose[command] = done
        with pytest.raises(MicaError) as caught:
            await update(world, disks=BOTH)
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        await world.until(lambda: (len(_spec(world).disks) == 2) == ("disk1" in qemu.qemu.devices))
        if "disk1" in qemu.qemu.devices:
            assert (command, done) == ("device_add", True)
            assert world.vms.usage.vm_of_volume("b") == "web"
        else:
            assert not qemu.rest_of("disk1")
            assert world.vms.usage.vm_of_volume("b") is None
            assert not qemu.qemu.fdsets
            await update(world, disks=BOTH)
        assert [d.key for d in _spec(world).disks] == ["disk0", "disk1"]
        assert {"disk0", "disk1"} <= qemu.qemu.devices
        await update(world, disks=BOTH[:1])
        assert not qemu.rest_of("disk1")

    story(tmp_path, tell)


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("command", ["netdev_add", "device_add"])
def test_a_card_whose_answer_is_lost(tmp_path: Path, command: str, done: bool) -> None:
    async def tell(world: World, qemu: Strict) -> None:
        nics = (NicSpec(),)
        qemu.lose[command] = done
        with pytest.raises(MicaError):
            await update(world, nics=nics)
        await world.until(lambda: (len(_spec(world).nics) == 1) == ("nic0" in qemu.qemu.devices))
        if not _spec(world).nics:
            await update(world, nics=nics)
        assert "nic0" in qemu.qemu.devices
        await update(world, nics=())
        assert not qemu.netdevs

    story(tmp_path, tell)


@pytest.mark.parametrize("command", ["object-add", "device_add"])
def test_memory_whose_answer_is_lost(tmp_path: Path, command: str) -> None:
    async def tell(world: World, qemu: Strict) -> None:
        qemu.lose[command] = command == "object-add"
        with pytest.raises(MicaError):
            await update(world, memory_bytes=512 * MIB)
        assert _spec(world).memory_bytes == 256 * MIB
        await update(world, memory_bytes=512 * MIB)
        assert "dimm0" in qemu.qemu.devices

    story(tmp_path, tell, memory_bytes=256 * MIB, memory=MemorySpec(max_bytes=1024 * MIB))


def test_what_is_plugged_in_at_once_is_all_noted(tmp_path: Path) -> None:
    """A later vmkernel knows of each card's port, and of the memory."""

    async def tell(world: World, _: Strict) -> None:
        before = read_record(world.host.folder("web").record)
        await update(world, nics=(NicSpec(), NicSpec()), memory_bytes=512 * MIB)
        noted = read_record(world.host.folder("web").record)
        assert before is not None
        assert noted is not None
        assert [nic.key for nic in noted.nics] == ["nic0", "nic1"]
        assert noted.memory_bytes >= before.memory_bytes + 256 * MIB
        assert not noted.unsettled

    story(tmp_path, tell, memory_bytes=256 * MIB, memory=MemorySpec(max_bytes=1024 * MIB))


def test_a_tablet_whose_answer_is_lost(tmp_path: Path) -> None:
    async def tell(world: World, qemu: Strict) -> None:
        answers: list[QmpLostError] = []

        def unplug(arguments: Mapping[str, Any]) -> Any:
            qemu.qemu.devices.discard(arguments["id"])
            return answers.pop() if answers else None

        qemu.qemu.devices.discard("tablet")
        qemu.qemu.replies["device_del"] = unplug
        for wanted in (True, False):
            if wanted:
                qemu.lose["device_add"] = True
            else:
                answers.append(QmpLostError(_LOST))
            with pytest.raises(MicaError):
                await update(world, tablet=wanted)
            await update(world, tablet=wanted)
            assert ("tablet" in qemu.qemu.devices) is wanted

    story(tmp_path, tell, tablet=False)


def test_a_disk_that_qemu_lets_go_of_late(tmp_path: Path) -> None:
    """Its device is gone, a request of it isn't: the key stays taken until all of it is gone."""

    async def tell(world: World, qemu: Strict) -> None:
        await update(world, disks=BOTH)
        qemu.busy.add("disk1")
        going = asyncio.ensure_future(update(world, disks=BOTH[:1]))
        await world.until(lambda: "disk1" not in qemu.qemu.devices)
        await world.quiet()
        assert not going.done()
        assert [d.key for d in _spec(world).disks] == ["disk0", "disk1"]
        qemu.busy.clear()
        await going
        assert [d.key for d in _spec(world).disks] == ["disk0"]
        assert not qemu.rest_of("disk1")
        await update(world, disks=BOTH)
        assert "disk1" in qemu.qemu.devices

    story(tmp_path, tell)


def test_a_disk_that_a_guest_ejects_while_qemu_does_not_answer(tmp_path: Path) -> None:
    """The report finds QEMU silent; it is looked at again until the spec is true."""

    async def tell(world: World, qemu: Strict) -> None:
        await update(world, disks=BOTH)
        qemu.lose["qom-list"] = False
        qemu.qemu.lose("disk1")
        await world.until(lambda: len(_spec(world).disks) == 1)
        assert not qemu.rest_of("disk1")

    story(tmp_path, tell)


def test_what_is_in_the_way_and_in_use_is_a_conflict(tmp_path: Path) -> None:
    async def tell(world: World, qemu: Strict) -> None:
        qemu.nodes["disk1"] = None
        qemu.objects.add("disk1-limits")
        qemu.busy.add("disk1")
        with pytest.raises(MicaError, match="former disk1") as caught:
            await update(world, disks=BOTH)
        assert caught.value.problem.code is ErrorCode.CONFLICT
        assert len(_spec(world).disks) == 1
        qemu.busy.clear()
        await update(world, disks=BOTH)

    story(tmp_path, tell)


# --- reports that QEMU made too fast -------------------------------------------------------------


def test_missed_reports_lead_to_a_look(tmp_path: Path) -> None:
    """Each thing that a dropped report would have said is found out by asking."""

    async def tell(world: World, qemu: Strict) -> None:
        await update(world, disks=BOTH)
        qemu.qemu.devices.discard("disk1")  # nothing is said of any of this
        qemu.qemu.status = RunState.PAUSED
        qemu.qemu.replies["query-chardev"] = [{"label": "agent0", "frontend-open": True}]
        qemu.qemu.say(ReportsMissed())
        await world.until(lambda: world.vms.inventory.get("web").status.state is VmState.PAUSED)
        await world.until(lambda: len(_spec(world).disks) == 1)
        assert len(world.events("vm.reports-missed")) == 1
        qemu.qemu.status = RunState.RUNNING
        qemu.qemu.say(ReportsMissed())
        await world.until(lambda: world.vms.inventory.get("web").status.state is VmState.RUNNING)

    story(tmp_path, tell)


def test_a_look_that_fails_is_repeated(tmp_path: Path) -> None:
    async def tell(world: World, qemu: Strict) -> None:
        await update(world, disks=BOTH)
        qemu.qemu.devices.discard("disk1")
        qemu.qemu.status_fails = 3
        qemu.qemu.say(ReportsMissed())
        await world.until(lambda: len(_spec(world).disks) == 1)

    story(tmp_path, tell)


def test_a_missed_pause_and_a_missed_refusal(tmp_path: Path) -> None:
    """A pause whose own question is lost, and a guest whose refusal was dropped: it is asked
    again, and refuses again."""

    async def tell(world: World, qemu: Strict) -> None:
        qemu.qemu.status = RunState.PAUSED
        qemu.qemu.status_fails = 1
        qemu.qemu.say(Paused())
        await world.until(lambda: world.vms.inventory.get("web").status.state is VmState.PAUSED)
        await world.act(VmAction.RESUME)
        qemu.qemu.keeps.add("disk0")
        asked = asyncio.ensure_future(update(world, disks=()))
        await world.until(lambda: world.vms.inventory.get("web").status.unplugging)

        def refuse(_: Any) -> dict[str, Any]:
            qemu.qemu.say(DeviceKept("disk0"))
            return {}

        qemu.qemu.replies["device_del"] = refuse
        qemu.qemu.say(ReportsMissed())
        with pytest.raises(MicaError, match="refused to release"):
            await asked
        qemu.qemu.say(DeviceGone("disk7"))
        await world.quiet()
        assert [d.key for d in _spec(world).disks] == ["disk0"]

    story(tmp_path, tell)
