"""What a running VM's spec may become: the differ, and changes on QEMUs that are objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.vm.plugging_story import plugging_story, update
from tests.unit.vm.world import World
from vmkernel.devices import Family
from vmkernel.model import (
    BootSpec,
    CdromSpec,
    CpuSpec,
    DiskBus,
    DiskLimits,
    DiskSpec,
    DisplayModel,
    ErrorCode,
    Firmware,
    HotPlugSpec,
    HugePages,
    ImageFormat,
    MemorySpec,
    MicaError,
    NicModel,
    NicSpec,
    Rate,
    VmAction,
    VmSpec,
    VmState,
    WatchdogAction,
    WatchdogSpec,
)
from vmkernel.qemu import DeviceGone, DeviceKept, QmpCommandError, QmpLostError
from vmkernel.vm.hotplug.plan import Changes, plan_changes
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.states import VmRequest
from vmkernel.vm.store import definition as definitions

MIB = 1 << 20
OLD = with_defaults(
    VmSpec(
        datastore="main",
        cpus=CpuSpec(count=1, max_count=4),
        memory_bytes=512 * MIB,
        memory=MemorySpec(max_bytes=1024 * MIB),
        disks=(DiskSpec(volume="a"), DiskSpec(volume="b", bus=DiskBus.VIRTIO_SCSI)),
        cdroms=(CdromSpec(image="cd"),),
        nics=(NicSpec(mac="52:54:00:00:00:01"),),
        watchdog=WatchdogSpec(),
    )
)


def plan(new: VmSpec, old: VmSpec = OLD, family: Family = Family.Q35) -> Changes:
    return plan_changes(old, with_defaults(new, old), at_start=old, family=family)


def refused(new: VmSpec, family: Family = Family.Q35) -> set[str]:
    with pytest.raises(MicaError) as caught:
        plan(new, family=family)
    assert caught.value.problem.code is ErrorCode.CONFLICT
    return {found.pointer for found in caught.value.problem.fields}


def test_nothing_to_do() -> None:
    assert plan(OLD) == Changes()
    assert plan(replace(OLD, name="new")) == Changes()
    assert plan(replace(OLD, boot=BootSpec(order=()))) == Changes()


def test_a_scsi_disk_needs_the_controller_of_the_start() -> None:
    old = replace(OLD, disks=OLD.disks[:1])
    new = replace(old, disks=OLD.disks)
    with pytest.raises(MicaError, match="started without a SCSI controller") as caught:
        plan(new, old)
    assert [found.pointer for found in caught.value.problem.fields] == ["/spec/disks/1/bus"]


def test_what_can_be_done_is_planned() -> None:
    limits = DiskLimits(iops=Rate(per_s=100))
    new = replace(
        OLD,
        cpus=replace(OLD.cpus, count=3),
        memory_bytes=768 * MIB,
        memory=replace(OLD.memory, target_bytes=256 * MIB),
        disks=(replace(OLD.disks[0], limits=limits), DiskSpec(volume="c", key="disk2")),
        cdroms=(replace(OLD.cdroms[0], image=None),),
        nics=(replace(OLD.nics[0], connected=False), NicSpec(mac="52:54:00:00:00:02")),
        tablet=False,
        keyboard=True,
        watchdog=WatchdogSpec(action=WatchdogAction.PAUSE),
    )
    changes = plan(new)
    assert [d.volume for d in changes.new_disks] == ["c"]
    assert [d.volume for d in changes.old_disks] == ["b"]
    assert [n.key for n in changes.new_nics] == ["nic1"]
    assert [c.image for c in changes.media] == [None]
    assert (changes.cpus, changes.memory_bytes) == (2, 256 * MIB)
    assert {found.name: found.new for found in changes.settings} == {
        "memory.target_bytes": 256 * MIB,
        "disks.disk0.limits": limits,
        "nics.nic0.connected": False,
        "tablet": False,
        "keyboard": True,
        "watchdog.action": WatchdogAction.PAUSE,
    }


def test_more_memory_lets_the_balloon_count_again() -> None:
    old = replace(OLD, memory=replace(OLD.memory, target_bytes=256 * MIB))
    changes = plan(replace(old, memory_bytes=768 * MIB), old)
    assert [found.path for found in changes.settings] == ["memory.target_bytes"]
    assert plan(replace(OLD, memory_bytes=768 * MIB)).settings == []


def test_no_limits_and_limits_of_nothing_are_the_same() -> None:
    new = replace(OLD, disks=(replace(OLD.disks[0], limits=DiskLimits()), OLD.disks[1]))
    assert plan(new) == Changes()


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"firmware": Firmware.BIOS, "display": DisplayModel.NONE}, {"firmware", "display"}),
        ({"cpus": CpuSpec(count=5, max_count=4)}, {"cpus/count"}),
        ({"cpus": CpuSpec(count=1, max_count=8)}, {"cpus/max_count"}),
        ({"memory_bytes": 256 * MIB}, {"memory_bytes"}),
        ({"memory_bytes": 513 * MIB}, {"memory_bytes"}),
        ({"memory_bytes": 2048 * MIB}, {"memory_bytes"}),
        ({"memory": MemorySpec(max_bytes=1024 * MIB, balloon=False)}, {"memory/balloon"}),
        ({"disks": (replace(OLD.disks[0], bus=DiskBus.SATA), OLD.disks[1])}, {"disks/0/bus"}),
        ({"disks": (replace(OLD.disks[0], volume="z"), OLD.disks[1])}, {"disks/0/volume"}),
        ({"disks": (*OLD.disks, DiskSpec(volume="c", bus=DiskBus.SATA))}, {"disks/2/bus"}),
        ({"disks": (*OLD.disks, DiskSpec(volume="c", key="disk40"))}, {"disks/2/key"}),
        ({"nics": (replace(OLD.nics[0], model=NicModel.E1000),)}, {"nics/0/model"}),
        ({"nics": (*OLD.nics, NicSpec(model=NicModel.RTL8139))}, {"nics/1/model"}),
        ({"cdroms": ()}, {"cdroms"}),
        ({"cdroms": (*OLD.cdroms, CdromSpec())}, {"cdroms/1"}),
        ({"watchdog": None}, {"watchdog"}),
        ({"serial_ports": 2}, {"serial_ports"}),
    ],
)
def test_what_needs_a_stop_names_its_fields(change: dict[str, Any], pointers: set[str]) -> None:
    assert refused(replace(OLD, **change)) == {f"/spec/{name}" for name in pointers}


def test_a_disk_of_the_old_pc_stays() -> None:
    new = replace(OLD, disks=OLD.disks[1:])
    assert refused(new, family=Family.PC) == {"/spec/disks"}


@given(st.permutations(range(3)))
def test_the_order_in_the_list_means_nothing(order: list[int]) -> None:
    disks = tuple(DiskSpec(volume=f"v{i}", key=f"disk{i}") for i in range(3))
    old = with_defaults(replace(OLD, disks=disks))
    new = replace(old, disks=tuple(old.disks[i] for i in order))
    assert plan(new, old=old) == Changes()


# --- on a QEMU that is an object ---------------------------------------------------------------


class Devices:
    """The devices of a fake QEMU; those in `kept` the guest does not let go."""

    def __init__(self, world: World) -> None:
        self.qemu = world.qemu()
        self.there = self.qemu.devices
        self.kept = self.qemu.keeps
        self.nodes: list[str] = []
        self.qemu.replies |= {
            "query-blockstats": lambda _: [{"node-name": n} for n in self.nodes],
            "query-hotpluggable-cpus": lambda _: [],
        }


def story(root: Path, tell: Callable[[World, Devices], Awaitable[None]], **fields: Any) -> None:
    def images(world: World) -> None:
        for image in ("red", "blue"):
            world.storage.add_image(image, ImageFormat.ISO)

    plugging_story(
        root,
        Devices,
        tell,
        images,
        cdroms=(CdromSpec(image="red"),),
        cpus=CpuSpec(count=1, max_count=2),
        **fields,
    )


def test_a_disk_comes_and_goes(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        before = world.vms.inventory.get("web").spec
        await update(world, disks=(DiskSpec(volume="a"), DiskSpec(volume="b")))
        assert "disk1" in devices.there
        names = [command for command, _ in world.qemu().commands]
        assert names.index("blockdev-add") < names.index("device_add")
        filename = next(a["filename"] for c, a in world.qemu().commands if c == "blockdev-add")
        assert filename.startswith("/dev/fdset/")
        assert world.vms.usage.vm_of_volume("b") == "web"
        await world.restart()
        assert [d.key for d in world.vms.inventory.get("web").spec.disks] == ["disk0", "disk1"]
        await update(world, disks=before.disks)
        assert "disk1" not in devices.there
        assert world.vms.inventory.get("web").spec == before
        assert world.vms.usage.vm_of_volume("b") is None

    story(tmp_path, tell)


def test_a_machine_wakes_as_it_began(tmp_path: Path) -> None:
    """Ports, controllers and memory are those of the start, whatever came and went since; also the
    second time, and for what is plugged in after that."""

    async def tell(world: World, devices: Devices) -> None:
        def began(words: tuple[str, ...]) -> list[str]:
            return sorted(w for w in words if "root-port" in w or "virtio-scsi" in w)

        first = world.qemu().request.arguments
        size = first[first.index("-m") + 1]
        disks = (DiskSpec(volume="a"), DiskSpec(volume="b"))
        await update(world, disks=disks)
        await update(world, disks=disks[1:], memory_bytes=512 * MIB)
        dimm = {"id": "dimm0", "size": 256 * MIB}
        for _ in range(2):
            reply = [{"type": "dimm", "data": dimm}]
            world.qemu().replies["query-memory-devices"] = reply
            await world.act(VmAction.SUSPEND)
            await world.act(VmAction.RESUME)
            assert world.vms.inventory.get("web").status.state is VmState.RUNNING
            words = world.qemu().request.arguments
            assert began(words) == began(first)
            assert words[words.index("-m") + 1] == size
            assert any('"pc-dimm"' in w and '"dimm0"' in w for w in words)
        world.qemu().replies["query-memory-devices"] = [{"type": "dimm", "data": dimm}]
        await world.act(VmAction.POWER_OFF)
        await world.act(VmAction.START)
        words = world.qemu().request.arguments
        assert not any("pc-dimm" in w for w in words)
        assert words[words.index("-m") + 1] != size
        assert len(began(words)) != 0

    story(tmp_path, tell, memory_bytes=256 * MIB, memory=MemorySpec(max_bytes=1024 * MIB))


def test_what_fails_is_taken_back_and_the_spec_tells_the_truth(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        before = world.vms.inventory.get("web")
        wanted = {
            "disks": (DiskSpec(volume="a"), DiskSpec(volume="b")),
            "cdroms": (CdromSpec(image="blue"),),
            "cpus": CpuSpec(count=2, max_count=2),
        }
        with pytest.raises(MicaError, match="only 0 more"):
            await update(world, **wanted)
        assert devices.there == {"disk0"}
        assert world.vms.inventory.get("web").spec == before.spec
        assert world.vms.usage.vm_of_volume("b") is None
        world.qemu().replies["blockdev-insert-medium"] = QmpCommandError("no")
        with pytest.raises(MicaError):
            await update(world, **wanted)
        assert devices.there == {"disk0"}

    story(tmp_path, tell)


@pytest.mark.parametrize("in_pool", [0, 64, 200])
def test_added_memory_has_the_pages_of_the_rest(tmp_path: Path, in_pool: int) -> None:
    """The pool gives what it has; the rest comes from ordinary memory, and only that counts."""

    async def tell() -> None:
        pool = tmp_path / "pools/hugepages-2048kB"
        pool.mkdir(parents=True)
        for name in ("free", "resv", "surplus", "nr", "nr_overcommit"):
            (pool / f"{name}_hugepages").write_text("0")
        (pool / "free_hugepages").write_text("128")
        world = World(tmp_path)
        await world.vms.start()
        try:
            pages = MemorySpec(max_bytes=1024 * MIB, huge_pages=HugePages.SIZE_2M)
            await world.create(memory_bytes=256 * MIB, memory=pages)
            await world.act(VmAction.START)
            before = world.host.admission.promised_bytes
            assert before < 256 * MIB
            (pool / "free_hugepages").write_text(str(in_pool))
            Devices(world)
            await update(world, memory_bytes=512 * MIB)
            missing = max(0, 128 - in_pool)
            assert (pool / "nr_overcommit_hugepages").read_text() == str(missing)
            grown = world.host.admission.promised_bytes - before
            assert missing * 2 * MIB <= grown < missing * 2 * MIB + 2 * MIB
            added = [a for c, a in world.qemu().commands if c == "object-add"]
            assert [a["hugetlbsize"] for a in added] == [2 * MIB]
            promised = world.host.admission.promised_bytes
            await world.restart()
            await world.until(lambda: world.host.admission.promised_bytes)
            assert world.host.admission.promised_bytes == promised
        finally:
            await world.operations.close()
            await world.vms.stop()

    asyncio.run(tell())


def _spec_keys(world: World) -> list[str | None]:
    spec = world.vms.inventory.get("web").spec
    return [*(d.key for d in spec.disks), *(n.key for n in spec.nics)]


async def _asked_in_vain(world: World, devices: Devices, **changes: Any) -> None:
    """A removal that the guest doesn't agree to in time."""
    with pytest.raises(MicaError) as caught:
        await update(world, **changes)
    assert caught.value.problem.code is ErrorCode.TIMED_OUT
    assert "unplugging" in caught.value.problem.detail


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests have no time to agree."""
    monkeypatch.setattr("vmkernel.vm.hotplug.apply._CONSENT_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_guest_that_keeps_its_disk_keeps_it_in_the_spec(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        devices.kept.add("disk0")
        await _asked_in_vain(world, devices, disks=(), cdroms=(CdromSpec(image="blue"),))
        vm = world.vms.inventory.get("web")
        assert [d.volume for d in vm.spec.disks] == ["a"]
        assert vm.spec.cdroms[0].image == "blue"
        assert vm.status.unplugging == ("disk0",)
        devices.kept.clear()
        await update(world, disks=())
        vm = world.vms.inventory.get("web")
        assert (vm.spec.disks, vm.status.unplugging) == ((), ())

    story(tmp_path, tell)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("key", ["disk0", "nic0"])
def test_what_goes_after_the_answer_goes_from_the_spec(tmp_path: Path, key: str) -> None:
    async def tell(world: World, devices: Devices) -> None:
        devices.kept.add(key)
        field = "disks" if key == "disk0" else "nics"
        await _asked_in_vain(world, devices, **{field: ()})
        before = world.vms.inventory.get("web")
        assert key in _spec_keys(world)
        world.events("none")
        devices.qemu.lose(key)
        await world.until(lambda: key not in _spec_keys(world))
        after = world.vms.inventory.get("web")
        assert after.revision == before.revision + 1, "whoever knew the device must look again"
        assert after.status.unplugging == ()
        assert all(nic.key != key for nic in after.status.nics)
        (event,) = world.events("vm.device-removed")
        assert (event.data["device"], event.data["kind"]) == (key, field.removesuffix("s"))
        if key == "disk0":
            assert world.vms.usage.vm_of_volume("a") is None
            await update(world, disks=(DiskSpec(volume="b", key=key),))
            assert world.vms.usage.vm_of_volume("b") == "web"
        await world.restart()
        assert (key in _spec_keys(world)) is (key == "disk0")

    story(tmp_path, tell, nics=(NicSpec(),))


@pytest.mark.usefixtures("impatient")
def test_what_goes_while_no_vmkernel_listens_is_found(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        devices.kept.add("disk0")
        await _asked_in_vain(world, devices, disks=())
        await world.restart()
        assert world.vms.inventory.get("web").status.unplugging == ("disk0",)
        devices.qemu.lose("disk0")
        await world.until(lambda: not world.vms.inventory.get("web").spec.disks)
        await update(world, disks=(DiskSpec(volume="b"),))
        await world.operations.close()
        await world.vms.stop()
        devices.qemu.devices.discard("disk0")
        world.new_vmkernel()
        await world.vms.start()
        assert world.vms.inventory.get("web").spec.disks == ()
        assert [event.data["device"] for event in world.events("vm.device-removed")] == [
            "disk0",
            "disk0",
        ]

    story(tmp_path, tell)


def test_an_update_does_not_undo_a_removal_that_came_between(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        seen = world.vms.inventory.get("web")
        go_on = asyncio.Event()

        async def wait(_: RunningVm) -> None:
            await go_on.wait()

        block = asyncio.create_task(world.vms.inventory.use("web", VmRequest.OPERATE, wait))
        await world.quiet()
        devices.qemu.lose("nic0")
        await world.quiet()
        renamed = asyncio.create_task(
            world.vms.changes.update(
                "web", replace(seen.spec, name="old"), seen.revision, actor="test"
            )
        )
        await world.quiet()
        assert not renamed.done()
        go_on.set()
        await block
        with pytest.raises(MicaError) as caught:
            await renamed
        assert caught.value.problem.code is ErrorCode.REVISION_MISMATCH
        now = world.vms.inventory.get("web")
        assert (now.spec.nics, now.spec.name) == ((), seen.spec.name)

    story(tmp_path, tell, nics=(NicSpec(),))


def test_what_a_guest_ejects_of_itself_goes_too(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        devices.qemu.lose("nic0")
        await world.until(lambda: not world.vms.inventory.get("web").spec.nics)
        assert [d.key for d in world.vms.inventory.get("web").spec.disks] == ["disk0"]
        assert len(world.events("vm.device-removed")) == 1
        devices.qemu.say(DeviceGone("disk0"))  # said of a device that is there again
        devices.qemu.say(DeviceGone("no-such-device"))
        await world.quiet()
        assert [d.key for d in world.vms.inventory.get("web").spec.disks] == ["disk0"]

    story(tmp_path, tell, nics=(NicSpec(),))


@pytest.mark.usefixtures("impatient")
def test_a_guest_that_refuses_is_believed(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        devices.kept.add("disk0")

        def refuse(_: Any) -> dict[str, Any]:
            devices.qemu.say(DeviceKept("disk0"))
            return {}

        devices.qemu.replies["device_del"] = refuse
        with pytest.raises(MicaError, match="refused to release disk0") as caught:
            await update(world, disks=())
        assert caught.value.problem.code is ErrorCode.CONFLICT
        assert world.vms.inventory.get("web").status.unplugging == ()
        del devices.qemu.replies["device_del"]
        await _asked_in_vain(world, devices, disks=())
        world.events("none")
        devices.qemu.say(DeviceKept("disk0"))
        await world.until(lambda: not world.vms.inventory.get("web").status.unplugging)
        assert len(world.events("vm.device-kept")) == 1
        assert [d.key for d in world.vms.inventory.get("web").spec.disks] == ["disk0"]

    story(tmp_path, tell)


def test_a_paused_guest_is_not_asked(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        await update(world, disks=(DiskSpec(volume="a"), DiskSpec(volume="b", bus=DiskBus.USB)))
        await world.act(VmAction.PAUSE)
        for changes in ({"disks": world.vms.inventory.get("web").spec.disks[1:]}, {"nics": ()}):
            with pytest.raises(MicaError, match="is paused") as caught:
                await update(world, **changes)
            assert caught.value.problem.code is ErrorCode.CONFLICT
        assert not [c for c, _ in devices.qemu.commands if c == "device_del"]
        assert world.vms.inventory.get("web").status.unplugging == ()
        # A USB disk goes without the guest.
        await update(world, disks=world.vms.inventory.get("web").spec.disks[:1])
        assert [d.key for d in world.vms.inventory.get("web").spec.disks] == ["disk0"]
        await world.act(VmAction.RESUME)
        await update(world, nics=())

    story(tmp_path, tell, nics=(NicSpec(),))


@pytest.mark.usefixtures("impatient")
def test_a_power_off_keeps_what_the_guest_kept(tmp_path: Path) -> None:
    async def tell(world: World, devices: Devices) -> None:
        devices.kept.add("disk0")
        await _asked_in_vain(world, devices, disks=())
        await world.act(VmAction.POWER_OFF)
        vm = world.vms.inventory.get("web")
        assert [d.key for d in vm.spec.disks] == ["disk0"]
        assert vm.status.unplugging == ()
        await world.act(VmAction.START)
        assert "disk0" in world.qemu().devices
        assert world.vms.inventory.get("web").status.unplugging == ()

    story(tmp_path, tell)


def test_a_change_that_was_cut_off_leaves_what_the_machine_has(tmp_path: Path) -> None:
    """The vmkernel is killed between writing the spec down and plugging the disk in."""

    async def tell(world: World, devices: Devices) -> None:
        devices.qemu.replies["device_add"] = QmpLostError("killed")
        with pytest.raises(MicaError):
            await update(world, disks=(DiskSpec(volume="a"), DiskSpec(volume="b")))
        folder = tmp_path / "ds/main/vms/web"
        known = definitions.load(folder)
        disks = (*known.spec.disks, DiskSpec(volume="b", key="disk1", bus=DiskBus.VIRTIO_BLK))
        definitions.save(folder, replace(known, spec=replace(known.spec, disks=disks)))
        await world.restart()
        await world.until(lambda: len(world.vms.inventory.get("web").spec.disks) == 1)
        assert world.vms.usage.vm_of_volume("b") is None

    story(tmp_path, tell)


def test_a_port_under_a_disk_that_needs_none_is_not_counted() -> None:
    """Four free ports are four places, whatever buses the other disks are on."""
    disks = tuple(
        DiskSpec(volume=f"v{n}", key=f"disk{n}", bus=DiskBus.VIRTIO_SCSI) for n in range(6)
    )
    old = with_defaults(replace(OLD, disks=disks))
    new = tuple(DiskSpec(volume=f"w{n}", bus=DiskBus.VIRTIO_BLK) for n in range(4))
    added = plan(replace(old, disks=(*old.disks, *new)), old).new_disks
    assert [disk.key for disk in added] == ["disk6", "disk7", "disk8", "disk9"]


def test_a_refusal_for_want_of_a_port_names_what_helps() -> None:
    old = with_defaults(replace(OLD, disks=OLD.disks[:1], hot_plug=HotPlugSpec(disks=0)))
    with pytest.raises(MicaError) as caught:
        plan(replace(old, disks=(*old.disks, DiskSpec(volume="c", key="disk9"))), old)
    (problem,) = caught.value.problem.fields
    assert problem.pointer == "/spec/disks/1/key"
    for help_ in ("usb", "removed frees its port", "hot_plug.disks"):
        assert help_ in problem.detail
    assert "virtio-scsi" not in problem.detail, "there is no such controller"
