"""What two guests' processes may do, seen from inside, against what their units say.

The first has huge pages and a line to the host (vsock), the second a TPM, whose emulator is a
process of its own in the same jail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.inside import plugged_in_with_agent, upload_boot_files
from tests.framework.jail import Jailed, differences, look_at
from tests.framework.jail_probe import PROBE, REFUSED_CALL, outcomes
from tests.framework.variant import Agent

GIB, MIB = 1 << 30, 1 << 20
DISK = "JAILDISK01"
REFUSED = REFUSED_CALL | {"EACCES", "ENOENT"}
OUT_OF_REACH = (
    # Not /run/mica itself: in the jail it is an empty folder that leads to the VM's own files.
    *("/etc/passwd", "/etc/shadow", "/var/lib/mica", "/run/mica/vm/one", "/run/mica/control.sock"),
    *("/run/mica/state-copy", "/run/mica/datastores/main", "/run/systemd/private", "/root"),
    *("/dev/kvm", "/dev/mem", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/kmsg"),
    *("/dev/vda", "/proc/kcore", "/proc/kmsg", "/proc/sys/kernel/core_pattern", "/proc/config.gz"),
    *("/sys/class/net", "/sys/kernel/security", "/sys/fs/cgroup", "/sys/firmware", "/dev/shm"),
    *("!/usr/bin/python3", "!/usr/bin/qemu-img", "!/usr/bin/systemctl", "!/run/mica/vm/probe/disk"),
)
LAUNCH_PROBE = """
import asyncio, json, os, shutil, sys
from pathlib import Path
from vmkernel.devices import Accelerator
from vmkernel.host import Runner
from vmkernel.vm.launch import systemd_unit as launcher_appliance
from vmkernel.vm.launch.launcher import LaunchRequest, RunFolder, TpmLaunch

program, uid, paths = sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3:])
launcher_appliance.QEMU = launcher_appliance.SWTPM = program

class Beside(TpmLaunch):
    def arguments(self, fd):
        return ["swtpm", *paths]

async def main():
    folder = RunFolder(Path("/run/mica/vm/probe"))
    folder.path.mkdir(mode=0o755)
    disk, state = folder.path / "disk", folder.path / "state"
    shutil.copyfile(program, disk)
    state.touch()
    for path in (disk, state):
        os.chown(path, uid, uid)
        path.chmod(0o700)
    kvm = os.open("/dev/kvm", os.O_RDWR)
    log = os.open(folder.path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    request = LaunchRequest(
        vm_id="probe", folder=folder, log=log, arguments=("qemu", *paths), fds=(kvm,), uid=uid,
        accelerator=Accelerator.KVM, memory_max_bytes=256 << 20, cpu_count=1,
        read_only=(), read_write=(disk,), tpm=Beside(state, os.open("/dev/null", os.O_RDWR)),
    )
    launcher = launcher_appliance.ApplianceLauncher(folder.path.parent, Runner())
    await launcher.launch(request)
    gone = await launcher.wait_gone("probe", 60)
    how = await launcher.collect("probe")
    print(json.dumps({"gone": gone, "how": how, "log": (folder.path / "log").read_text()}))

asyncio.run(main())
"""
"""Starts the probe where QEMU and swtpm start: the real launcher, unit, drop-in and lists."""
VMS = ("one", "two")
TPM = "two's TPM"
VSOCK_PORT = 4000
TALK = """
import socket
with socket.socket(socket.AF_VSOCK) as channel:
    channel.settimeout(20)
    channel.connect(({cid}, {port}))
    channel.sendall(b"a line from the host\\n")
    print(channel.makefile().readline())
"""


@dataclass(frozen=True)
class Prison:
    """An appliance with two guests, each with a disk and a card, and a hand inside."""

    appliance: Appliance
    agent: Agent
    pids: dict[str, int]
    jailed: dict[str, Jailed]


@pytest.fixture(scope="module")
def prison(folder: Path, guest: GuestFiles) -> Iterator[Prison]:
    """Both guests run."""
    disk = Drive("main", blank_disk(folder / "main.img", 4 * GIB), Bus.VIRTIO, DISK)
    with plugged_in_with_agent(folder, disks=[disk]) as (appliance, agent):
        appliance.create_datastore("main", DISK)
        upload_boot_files(appliance, guest)
        appliance.upload("bios-disk", guest.bios_disk, "raw")
        appliance.create_volume("one-disk", 8 * MIB)
        size = guest.bios_disk.stat().st_size
        appliance.create_volume("two-disk", size, source_image="bios-disk")
        boot = {"kernel": {"kernel": "kernel", "initrd": "initrd", "cmdline": COMMAND_LINE}}
        _start(appliance, "one", boot=boot, vsock={}, memory={"huge_pages": "2M"})
        _start(appliance, "two", tpm=True)
        pids = {vm: agent.main_pid(f"mica-vm@{vm}.service") for vm in VMS}
        jailed = {vm: look_at(agent, vm, pid) for vm, pid in pids.items()}
        processes = agent.read(f"/sys/fs/cgroup{jailed['two'].cgroup[3:]}/cgroup.procs").split()
        (pids[TPM],) = {int(pid) for pid in processes} - {pids["two"]}
        jailed[TPM] = look_at(agent, "two", pids[TPM])
        yield Prison(appliance, agent, pids, jailed)


def _start(appliance: Appliance, vm: str, **more: Any) -> None:
    appliance.create_vm(vm, firmware="bios", disks=[{"volume": f"{vm}-disk"}], nics=[{}], **more)
    appliance.start(vm)
    with appliance.console(vm) as console:
        console.expect(r"MICA GUEST UP", timeout_s=90, what="the guest is up")


@pytest.mark.parametrize("vm", [*VMS, TPM])
def test_the_process_is_allowed_what_its_unit_says(prison: Prison, vm: str) -> None:
    wrong = differences(prison.jailed[vm])
    assert not wrong, "\n".join(wrong)


def test_a_tpm_s_process_has_nothing_of_its_guest_s_machine(prison: Prison) -> None:
    """No KVM, no card, no disk: a socket, its log, and the file of its state."""
    tpm, guest = prison.jailed[TPM], prison.jailed["two"]
    assert prison.agent.read(f"/proc/{prison.pids[TPM]}/comm").strip() == "swtpm"
    assert "/dev/kvm" in guest.files
    opened = {file for file in tpm.files if not re.match(r"(socket|pipe|anon_inode):", file)}
    log, state = "/run/mica/vm/two/qemu.log", "/vms/two/tpm.state"
    assert all(file in ("/dev/null", log) or state in file for file in opened), opened
    assert tpm.cgroup == guest.cgroup
    for kind in ("mnt", "net", "pid", "ipc", "user"):
        assert tpm.namespaces[kind] == guest.namespaces[kind], kind


def test_a_taken_over_process_finds_no_way_out(prison: Prison) -> None:
    """The probe runs in the real unit as QEMU and as swtpm do, and tries each way out."""
    (theirs,) = _disks(prison.jailed["one"])
    paths = (*OUT_OF_REACH, theirs, f"!{theirs}")
    said = prison.agent.run(
        *("/usr/bin/python3", "-I", "-c", LAUNCH_PROBE, PROBE, "104999", *paths), timeout_s=120
    )
    ended = json.loads(said.splitlines()[-1])
    print(ended["log"])
    assert ended["gone"]
    assert "a program in memory runs" not in ended["log"]
    for role, ways_min in (("qemu", 190), ("swtpm", 198)):
        found = outcomes(ended["log"], role)
        assert len(found) >= ways_min, found
        assert found.pop("int80") == "trying"  # it ended there
        assert {name: how for name, how in found.items() if how not in REFUSED} == {}
    assert "SYS" in ended["how"] or "31" in ended["how"] or "signal" in ended["how"], ended["how"]


def test_the_kernel_refuses_what_passes_filters(prison: Prison) -> None:
    for name, value in (("kernel/io_uring_disabled", "2"), ("vm/memfd_noexec", "2")):
        assert prison.agent.read(f"/proc/sys/{name}").strip() == value


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


def test_another_guest_s_tpm_is_out_of_reach(prison: Prison) -> None:
    (state,) = [
        p for p in prison.jailed["two"].policy.paths("BindPaths") if p.endswith("/tpm.state")
    ]
    secret = state
    for vm, said in (("two", ""), ("one", "No such file or directory")):
        uid = int(prison.jailed[vm].policy.last("User"))
        assert prison.agent.open_as(uid, f"/proc/{prison.pids[vm]}/root", secret) == said
    uid = int(prison.jailed["one"].policy.last("User"))
    assert prison.agent.open_as(uid, "/", secret) == "Permission denied"


def test_huge_pages_are_taken_and_a_pool_that_can_t_grow_is_told(prison: Prison) -> None:
    """256 MiB of the guest's lie in 128 pages of 2 MiB, and stay there though the guest uses few of
    them; the host has no whole GiB to give."""
    meminfo = dict(
        line.split(":") for line in prison.agent.read("/proc/meminfo").splitlines() if line
    )
    used = int(meminfo["HugePages_Total"]) - int(meminfo["HugePages_Free"])
    assert used * 2 * MIB == 256 * MIB
    prison.appliance.create_vm(
        "huge", firmware="bios", memory_bytes=GIB, memory={"huge_pages": "1G"}
    )
    problem = prison.appliance.call(
        "POST", "/v1/vms/huge/start", params={"wait": 20}, expect=409
    ).json()
    assert problem["code"] == "insufficient-resources"
    assert "pages of 2 MiB" in problem["detail"]
    assert [error["pointer"] for error in problem["errors"]] == ["/spec/memory/huge_pages"]
    prison.appliance.call("DELETE", "/v1/vms/huge", expect=204)


def test_guest_and_host_talk_by_vsock(prison: Prison) -> None:
    """The guest has the CID that its spec tells, and data goes both ways without a network."""
    cid = prison.appliance.get("/v1/vms/one")["spec"]["vsock"]["cid"]
    with prison.appliance.console("one") as console:
        assert console.ask(f"vsock {VSOCK_PORT}", timeout_s=30) == f"cid {cid} listens"
        talk = TALK.format(cid=cid, port=VSOCK_PORT)
        answer = prison.agent.run("/usr/bin/python3", "-c", talk)
        assert answer.strip() == "the guest heard: a line from the host"
        console.expect("^vsock heard: a line from the host$", timeout_s=30, what="it heard")


def _disks(jailed: Jailed) -> list[str]:
    return [path for path in jailed.policy.paths("BindPaths") if "disk" in path]
