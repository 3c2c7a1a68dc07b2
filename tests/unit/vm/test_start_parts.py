"""Parts of a start: the clock, the machine type, what a host lacks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from tests.unit.vm.world import World
from vmkernel.model import (
    Clock,
    ClockSpec,
    ErrorCode,
    Firmware,
    GuestOs,
    ImageFormat,
    MemorySpec,
    MicaError,
    NicSpec,
    VmAction,
    VmSpec,
    VmState,
)
from vmkernel.qemu import QemuProgram, QmpMessage
from vmkernel.qemu.domain_events import WatchdogFired, translate
from vmkernel.vm.spec.defaults import with_drivers
from vmkernel.vm.start.plan import rtc_base

NOON = 1_795_435_200  # 2026-11-23T12:00:00Z


def test_the_clock() -> None:
    assert rtc_base(ClockSpec(base=Clock.UTC), NOON) == "utc"
    ahead = ClockSpec(base=Clock.LOCAL, utc_offset_minutes=90)
    assert rtc_base(ahead, NOON) == "2026-11-23T13:30:00"
    behind = ClockSpec(base=Clock.LOCAL, utc_offset_minutes=-720)
    assert rtc_base(behind, NOON) == "2026-11-23T00:00:00"


def test_machines_that_are_gone() -> None:
    machines = frozenset(f"pc-q35-{v}" for v in ("9.2", "10.0", "8.1"))
    program = QemuProgram(version=(10, 0), machines=machines)
    program.check_machine("web", "pc-q35-9.2")
    with pytest.raises(MicaError, match=r"pc-q35-2.4, .* offers pc-q35-8.1 to pc-q35-10.0") as e:
        program.check_machine("web", "pc-q35-2.4")
    assert e.value.problem.code is ErrorCode.UNAVAILABLE
    with pytest.raises(MicaError, match="offers no such machine"):
        program.check_machine("web", "pc-i440fx-2.4")
    QemuProgram(version=(10, 0)).check_machine("web", "pc-q35-2.4")


def test_watchdogs() -> None:
    fired = translate(QmpMessage("WATCHDOG", Raw(b'{"action": "poweroff"}')))
    assert fired == WatchdogFired("poweroff")
    assert WatchdogFired("poweroff").ends
    assert not WatchdogFired("reset").ends


def test_a_watchdog_that_powers_off(tmp_path: Path) -> None:
    """QEMU exits with it and says no more, but what came about is known."""

    async def story() -> None:
        world = World(tmp_path)
        await world.vms.start()
        await world.create(firmware=Firmware.BIOS)
        await world.act(VmAction.START)
        world.qemu().say(WatchdogFired("poweroff"))
        world.qemu().die(None)
        await world.until(lambda: world.vms.inventory.get("web").status.state is VmState.CRASHED)
        assert "watchdog" in (world.vms.inventory.get("web").status.reason or "")
        assert [e.data for e in world.events("vm.watchdog-fired")] == [{"action": "poweroff"}]
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


def test_a_host_without_the_firmware(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.vms.start()
        await world.create(firmware=Firmware.UEFI_SECURE_BOOT)
        ended = await world.act(VmAction.START)
        assert ended.error is not None
        assert "UEFI with Secure Boot" in ended.error.detail
        assert [field.pointer for field in ended.error.errors] == ["/spec/firmware"]
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


def test_what_is_set_before_the_guest_runs(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.vms.start()
        await world.create(
            firmware=Firmware.BIOS,
            nics=(NicSpec(), NicSpec(connected=False)),
            memory=MemorySpec(target_bytes=256 << 20),
        )
        await world.act(VmAction.START)
        commands = world.qemu().commands
        assert ("set_link", {"name": "nic1", "up": False}) in commands
        assert ("balloon", {"value": 256 << 20}) in commands
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


def test_drivers_for_windows(tmp_path: Path) -> None:
    world = World(tmp_path)
    spec = VmSpec(datastore="main", guest_os=GuestOs.WINDOWS)
    assert with_drivers(spec, world.storage.image) == spec
    world.storage.add_image("virtio-win", ImageFormat.ISO)
    with_cd = with_drivers(spec, world.storage.image)
    assert [cdrom.image for cdrom in with_cd.cdroms] == ["virtio-win"]
    assert with_drivers(with_cd, world.storage.image) == with_cd
    linux = replace(spec, guest_os=GuestOs.LINUX)
    assert with_drivers(linux, world.storage.image) == linux
