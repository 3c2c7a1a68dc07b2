"""Killing the management processes while a guest counts: the guest never notices."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.inside import plugged_in_with_agent, upload_boot_files
from tests.framework.variant import Agent

GIB = 1 << 30
DISK = "CRASHDISK01"
VMKERNEL, API = "mica-vmkernel.service", "mica-api.service"
GUEST_UNIT = "mica-vm@counter.service"
BACK_S = 60.0
SLACK_TICKS = 4


@dataclass(frozen=True)
class Counting:
    """An appliance with a guest that counts, and a hand inside."""

    appliance: Appliance
    agent: Agent

    def ticks(self) -> tuple[int, float]:
        """The newest count of the guest, and when it came."""
        with self.appliance.console("counter") as console:
            position = max(0, console.count())
            time.sleep(0.5)
            position = max(position, console.count())
            match, line = console.expect(
                r"^tick (\d+)$", timeout_s=30, what="the guest counts", after=position
            )
            return int(match.group(1)), line.time_s

    def back(self) -> bool:
        """True once the API answers for the guest again."""
        try:
            return self.appliance.vm_state("counter") == "running"
        except AssertionError:
            self.appliance.machine.check()
            return False


@pytest.fixture(scope="module")
def counting(folder: Path, guest: GuestFiles) -> Iterator[Counting]:
    """The variant with the agent, and a guest from kernel and initrd."""
    disk = Drive("main", blank_disk(folder / "main.img", 4 * GIB), Bus.VIRTIO, DISK)
    with plugged_in_with_agent(folder, disks=[disk]) as (appliance, agent):
        appliance.create_datastore("main", DISK)
        upload_boot_files(appliance, guest)
        boot = {"kernel": "kernel", "initrd": "initrd", "cmdline": COMMAND_LINE}
        appliance.create_vm("counter", firmware="bios", boot={"kernel": boot})
        appliance.start("counter")
        with appliance.console("counter") as console:
            console.expect(r"tick 2", timeout_s=90, what="the guest counts")
        yield Counting(appliance, agent)


@pytest.mark.parametrize("unit", [VMKERNEL, API])
@pytest.mark.parametrize("time_of", ["first", "second"])
def test_a_killed_management_process_touches_no_guest(
    counting: Counting, unit: str, time_of: str
) -> None:
    guest_pid = counting.agent.main_pid(GUEST_UNIT)
    assert guest_pid > 0
    killed_pid = counting.agent.main_pid(unit)
    before, before_s = counting.ticks()
    counting.agent.kill(unit)
    counting.appliance.machine.wait_for(
        f"{unit} is back and knows the guest", counting.back, timeout_s=BACK_S, interval_s=0.5
    )
    assert counting.agent.main_pid(unit) not in (0, killed_pid)
    after, after_s = counting.ticks()
    assert counting.agent.main_pid(GUEST_UNIT) == guest_pid, "the guest's process was replaced"
    assert abs((after - before) - (after_s - before_s)) <= SLACK_TICKS, "the count stopped"


def test_the_guest_still_obeys_its_actions(counting: Counting) -> None:
    counting.appliance.act("/v1/vms/counter/shutdown")
    counting.appliance.wait_vm_state("counter", "stopped", timeout_s=60)
    unit = counting.agent.run("/usr/bin/systemctl", "is-active", VMKERNEL)
    assert re.match("active", unit)
