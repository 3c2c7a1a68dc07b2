"""What two guests' processes may do, seen from inside, against what their units say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.jail import Jailed, differences, look_at
from tests.framework.machine import Firmware
from tests.framework.plugged_in import Setup, plugged_in
from tests.framework.variant import Agent, variant

GIB, MIB = 1 << 30, 1 << 20
DISK = "JAILDISK01"
VMS = ("one", "two")


@dataclass(frozen=True)
class Prison:
    """An appliance with two guests, each with a disk and a card, and a hand inside."""

    agent: Agent
    pids: dict[str, int]
    jailed: dict[str, Jailed]


@pytest.fixture(scope="module")
def prison(folder: Path, guest: GuestFiles) -> Iterator[Prison]:
    """Both guests run."""
    socket = folder / "agent.sock"
    socket.unlink(missing_ok=True)
    disk = Drive("main", blank_disk(folder / "main.img", 4 * GIB), Bus.VIRTIO, DISK)
    setup = Setup(
        folder=folder, firmware=Firmware.BIOS, disks=(disk,), extra=variant().arguments(socket)
    )
    with plugged_in(setup) as appliance:
        agent = Agent(socket)
        appliance.create_datastore("main", DISK)
        appliance.upload("kernel", guest.kernel, "linux-kernel")
        appliance.upload("initrd", guest.initrd, "linux-initrd")
        for vm in VMS:
            _start(appliance, vm)
        pids = {vm: agent.main_pid(f"mica-vm@{vm}.service") for vm in VMS}
        jailed = {vm: look_at(agent, vm, pid) for vm, pid in pids.items()}
        yield Prison(agent, pids, jailed)
        agent.close()


def _start(appliance: Appliance, vm: str) -> None:
    appliance.create_volume(f"{vm}-disk", 8 * MIB)
    boot = {"kernel": "kernel", "initrd": "initrd", "cmdline": COMMAND_LINE}
    appliance.create_vm(
        vm,
        firmware="bios",
        boot={"kernel": boot},
        disks=[{"volume": f"{vm}-disk"}],
    )
    appliance.start(vm)
    with appliance.console(vm) as console:
        console.expect(r"MICA GUEST UP", timeout_s=90, what="the guest is up")


@pytest.mark.parametrize("vm", VMS)
def test_the_process_is_allowed_what_its_unit_says(prison: Prison, vm: str) -> None:
    wrong = differences(prison.jailed[vm])
    assert not wrong, "\n".join(wrong)


def test_no_two_guests_share_a_user_a_group_or_a_namespace(prison: Prison) -> None:
    one, two = (prison.jailed[vm] for vm in VMS)
    assert one.policy.last("User") != two.policy.last("User")
    assert one.cgroup != two.cgroup
    for kind in ("mnt", "net", "pid", "ipc"):
        assert one.namespaces[kind] != two.namespaces[kind], kind


def test_another_guest_s_disk_is_out_of_reach(prison: Prison) -> None:
    agent = prison.agent
    for own, other in (VMS, VMS[::-1]):
        uid = int(prison.jailed[own].policy.last("User"))
        root = f"/proc/{prison.pids[own]}/root"
        (mine,) = _disks(prison.jailed[own])
        (theirs,) = _disks(prison.jailed[other])
        assert agent.open_as(uid, root, mine) == ""
        assert agent.open_as(uid, root, theirs) == "No such file or directory"
        assert agent.open_as(uid, "/", theirs) == "Permission denied"
        for secret in ("/run/mica/control.sock", "/var/lib/mica", "/etc/shadow"):
            assert agent.open_as(uid, root, secret) != ""


def _disks(jailed: Jailed) -> list[str]:
    return [path for path in jailed.policy.paths("BindPaths") if "disk" in path]
