"""VMs that start and end with their host."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.framework.running import on_loop
from vmkernel.model import (
    AutostartSpec,
    DiskSpec,
    StopAction,
    StopSpec,
    VmAction,
    VmState,
    WaitFor,
)

from .world import TIMING, World


def _auto(order: int = 100, **more: object) -> AutostartSpec:
    return AutostartSpec(enabled=True, order=order, **more)  # type: ignore[arg-type]


def _states(world: World) -> dict[str, VmState]:
    return {vm.id: vm.status.state for vm in world.vms.inventory.list_vms()}


async def _reboot(world: World, name: str) -> None:
    """The host goes down with its guests and comes again."""
    await world.vms.power.shutdown_all(timeout_s=1, force=True)
    world.boot_name = name
    await world.restart()
    await world.quiet()


async def _until(world: World, **wanted: VmState) -> None:
    await world.until(lambda: all(_states(world)[n] is state for n, state in wanted.items()))


async def _handled(world: World, *names: str) -> None:
    """Until the start with the host has dealt with all of these."""
    path = world.host.run_dir.parent / "autostart.json"
    await world.until(
        lambda: path.exists() and all(f'"{name}"' in path.read_text() for name in names)
    )


def _starts(world: World) -> list[str]:
    return [
        event.subject.id
        for event in world.events("vm.state")
        if event.data["state"] == VmState.RUNNING.value
    ]


@on_loop
async def test_once_a_boot_and_in_order(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    for name, spec in {
        "web": _auto(20),
        "db": _auto(10, delay_s=0.05),
        "off": AutostartSpec(),
    }.items():
        await world.create(name, autostart=spec)
    assert set(_states(world).values()) == {VmState.STOPPED}  # not before the next boot
    await _reboot(world, "second")
    await _handled(world, "db", "web")
    await asyncio.sleep(TIMING.datastores_s + 1)
    assert _starts(world) == ["db", "web"]
    assert _states(world)["off"] is VmState.STOPPED
    operations = [o for o in world.operations.all() if o.kind == "vm.start"]
    assert {o.actor for o in operations} == {"autostart"}
    await world.act(VmAction.POWER_OFF, "web")
    await world.restart()  # of the vmkernel only
    await asyncio.sleep(TIMING.datastores_s + 1)
    assert _states(world)["web"] is VmState.STOPPED
    await _reboot(world, "third")
    await _until(world, web=VmState.RUNNING)
    await world.vms.stop()


@on_loop
async def test_a_datastore_that_comes_late(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.timing = replace(TIMING, datastores_s=0.05)
    world.storage.add_volume("far", datastore="second")
    await world.vms.start()
    await world.create("here", autostart=_auto())
    await world.create("there", datastore="second", autostart=_auto())
    await world.create("split", disks=(DiskSpec(volume="far"),), autostart=_auto())
    far = world.storage.volumes.pop("far")
    world.storage.change("second", available=False)
    await _reboot(world, "second")
    await _handled(world, "here")
    assert _starts(world) == ["here"]
    world.storage.volumes["far"] = far
    world.storage.change("second", available=True)
    await _handled(world, "split", "there")
    await _until(world, split=VmState.RUNNING, there=VmState.RUNNING)
    await world.act(VmAction.POWER_OFF, "there")
    world.storage.change("second", available=False)
    world.storage.change("second", available=True)
    await asyncio.sleep(TIMING.datastores_s + 1)
    assert _states(world)["there"] is VmState.STOPPED
    await world.vms.stop()


@on_loop
async def test_an_adopted_datastore_starts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    await world.create("there", datastore="second", autostart=_auto())
    await world.vms.power.shutdown_all(timeout_s=1, force=True)
    world.storage.available.discard("second")
    world.storage.known.discard("second")
    world.boot_name = "second"
    await world.restart()
    await world.quiet()
    world.storage.known.add("second")
    world.storage.change("second", available=True)
    await asyncio.sleep(TIMING.datastores_s + 1)
    assert _states(world)["there"] is VmState.STOPPED
    await world.vms.stop()


@on_loop
async def test_a_failed_start_holds_nobody_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    await world.create("first", autostart=_auto(1, wait_for=WaitFor.AGENT, delay_s=60))
    await world.create("second", autostart=_auto(2))
    world.launcher.fail_next = "broken"
    await _reboot(world, "second")
    await _until(world, first=VmState.STOPPED, second=VmState.RUNNING)
    assert "broken" in (world.vms.inventory.get("first").status.reason or "")
    await world.vms.stop()


@on_loop
async def test_the_next_one_waits_for_the_agent(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    await world.create("first", autostart=_auto(1, wait_for=WaitFor.AGENT, delay_s=60))
    await world.create("second", autostart=_auto(2))
    await _reboot(world, "second")
    await _until(world, first=VmState.RUNNING)
    assert _states(world)["second"] is VmState.STOPPED
    world.vms.inventory.agent("first").note_channel(is_open=True)
    await _until(world, second=VmState.RUNNING)
    await world.vms.stop()


@on_loop
async def test_the_end_in_reverse_and_as_wanted(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    stops = {
        "db": StopSpec(),
        "web": StopSpec(action=StopAction.SUSPEND),
        "cache": StopSpec(action=StopAction.POWER_OFF),
        "stubborn": StopSpec(timeout_s=1, order=200),
    }
    for name, stop in stops.items():
        order = {"db": 1}.get(name, 100)
        await world.create(name, stop=stop, autostart=AutostartSpec(order=order))
        await world.act(VmAction.START, name)
    world.qemu("stubborn").obeys = False
    world.events("vm.state")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await world.vms.power.shutdown_all(timeout_s=60, force=True) == ("stubborn",)
    assert 1 <= loop.time() - began < 5
    states = _states(world)
    assert states.pop("web") is VmState.SUSPENDED
    assert set(states.values()) == {VmState.STOPPED}
    ended = [
        event.subject.id
        for event in world.events("vm.state")
        if event.data["state"] in ("stopped", "suspended")
    ]
    assert (ended[0], ended[-1]) == ("stubborn", "db")
    await world.vms.stop()


@on_loop
async def test_the_whole_end_is_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    for number, name in enumerate(("a", "b", "c")):
        await world.create(name, stop=StopSpec(order=number))
        await world.act(VmAction.START, name)
        world.qemu(name).obeys = False
    assert await world.vms.power.shutdown_all(timeout_s=0.1, force=True) == ("a", "b", "c")
    assert set(_states(world).values()) == {VmState.STOPPED}
    await world.vms.stop()


@on_loop
async def test_what_cannot_be_suspended_is_shut_down(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.vms.start()
    await world.create(stop=StopSpec(action=StopAction.SUSPEND))
    await world.act(VmAction.START)
    world.qemu().replies["query-migrate"] = {"status": "failed", "error-desc": "nvme"}
    assert await world.vms.power.shutdown_all(timeout_s=10, force=True) == ()
    assert _states(world)["web"] is VmState.STOPPED
    await world.vms.stop()
