"""Which disk is the stick, what went through it, and what is said when it isn't there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.platform.sample_tree import ESP_GUID, SampleMachine
from vmkernel.platform.stick import StickWatch


@pytest.fixture
def machine(tmp_path: Path) -> SampleMachine:
    """A machine without disks."""
    return SampleMachine(tmp_path)


def watch(machine: SampleMachine) -> StickWatch:
    """The stick of the made-up machine."""
    return StickWatch(machine.sys, machine.dev)


def codes(sticks: StickWatch) -> list[str]:
    """The findings' codes."""
    return [finding.code for finding in sticks.findings()]


def test_uefi_names_the_partition(machine: SampleMachine) -> None:
    machine.efi(LoaderDevicePartUUID=ESP_GUID.upper())
    machine.stick("sda")
    sticks = watch(machine)
    found = sticks.probe()
    assert found is not None
    assert (found.state, found.esp) == (machine.dev / "sda2", machine.dev / "sda1")
    assert codes(sticks) == []
    assert sticks.info().serial == "S1"


def test_uefi_takes_no_other_disk_with_a_state_partition(machine: SampleMachine) -> None:
    machine.efi(LoaderDevicePartUUID="00000000-0000-4000-8000-000000000000")
    machine.stick("sda")
    sticks = watch(machine)
    assert sticks.probe() is None
    assert codes(sticks) == ["stick-missing"]


def test_bios_goes_by_the_state_partition(machine: SampleMachine) -> None:
    machine.stick("sdb")
    found = watch(machine).probe()
    assert found is not None
    assert found.disk.name == "sdb"


def test_of_two_alike_the_usb_one_is_taken_and_told(machine: SampleMachine) -> None:
    machine.stick("sda", usb=False)
    machine.stick("sdb", usb=True)
    sticks = watch(machine)
    found = sticks.probe()
    assert found is not None
    assert found.disk.name == "sdb"
    assert codes(sticks) == ["two-sticks"]


def test_a_stick_pulled_and_put_back_keeps_its_count(machine: SampleMachine) -> None:
    machine.stick("sda")
    sticks = watch(machine)
    sticks.probe()
    machine.traffic("sda", 100, 10)
    assert sticks.info().written_bytes == 5120
    assert not sticks.disk_removed("sdz")
    assert sticks.disk_removed("sda")
    machine.pull("sda")
    assert codes(sticks) == ["stick-missing"]
    assert (sticks.info().present, sticks.info().written_bytes) == (False, 5120)
    machine.stick("sdc")
    machine.traffic("sdc", 4, 2)
    assert sticks.probe() is not None
    assert (sticks.info().written_bytes, sticks.info().read_bytes) == (6144, 53248)


def test_another_stick_put_in_later_is_not_the_stick(machine: SampleMachine) -> None:
    machine.stick("sda", serial="S1")
    sticks = watch(machine)
    sticks.probe()
    sticks.disk_removed("sda")
    machine.pull("sda")
    machine.stick("sdb", serial="S2")
    assert sticks.probe() is None


def test_waiting_tells_once_and_ends(machine: SampleMachine) -> None:
    told: list[str] = []
    found = asyncio.run(watch(machine).wait(0.05, lambda: told.append("waiting")))
    assert found is None
    assert told == ["waiting"]


def test_waiting_sees_a_stick_that_comes(machine: SampleMachine) -> None:
    async def scenario() -> bool:
        sticks = watch(machine)
        task = asyncio.create_task(sticks.wait(5, lambda: machine.stick("sda")))
        return await task is not None

    assert asyncio.run(scenario())


def test_a_disk_with_a_broken_table_is_no_stick(machine: SampleMachine) -> None:
    machine.stick("sda")
    data = bytearray((machine.dev / "sda").read_bytes())
    data[600] ^= 1
    data[1100] ^= 1
    (machine.dev / "sda").write_bytes(data)
    assert watch(machine).probe() is None
