"""What the kernel and the vmkernel's unit refuse, tried from inside; what the API says of it; and
which USB devices are let in.

The probe (framework/probe_sandbox.py) runs twice: as root with nothing around it, and in a unit
with the very settings of mica-vmkernel.service.
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
from tests.framework.inside import plugged_in_with_agent
from tests.framework.jail import Policy
from tests.framework.repository import REPOSITORY
from tests.framework.variant import Agent

MIB = 1 << 20
UNITS = REPOSITORY / "appliance_build/image/rootfs/usr/lib/systemd/system"
PROBE = Path(__file__).parent.parent / "framework/probe_sandbox.py"
SCRIPT, OUTCOME, UNIT = "/run/mica-probe.py", "/run/mica-probe.json", "mica-probe.service"
KEPT = re.compile(
    r"(Capability|SystemCall|Restrict|Device|MemoryDeny|NoNew|Lock|Keyring|Protect|UMask|Private)"
)
WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"

BY_THE_KERNEL = {
    "load an unsigned module",
    "load another kernel",
    "read the kernel's memory (kcore)",
    "open /dev/mem",
    "open /dev/port",
    "raise the I/O privilege level",
    "mount debugfs",
    "write to read-only memory",
    "a user's own user namespace",
    *(f"execute from {folder}" for folder in ("/run", "/tmp", "/dev/shm", "/var", "/etc", "/dev")),
}
BY_THE_UNIT = {
    "load a signed module",
    "a network namespace",
    "a user namespace",
    "another root",
    "a packet socket",
    "a vsock",
    "a raw IP socket",
    "a crypto socket",
    "memory to write and execute",
    "a bpf program",
    "count the kernel's events",
    "be traced",
    "handle page faults",
    "set the clock",
    "restart at once",
    "open a sound or video device",
    "a set-user-id program",
}
KEYBOARD, SERIAL, NETWORK, LATE = "0627:0001", "0403:6001", "0525:a4a2", "MICALATE01"
DISK = "HARDDISK01"
HUB, BEHIND = "0409:55aa", "MICAHUB01"
OPEN_IN_SLICE = """
import os, pathlib, sys
pathlib.Path("/sys/fs/cgroup/mica.slice/mica-work.slice/cgroup.procs").write_text(str(os.getpid()))
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY))
        print(path, "opened")
    except OSError as error:
        print(path, error.strerror)
"""


@dataclass(frozen=True)
class Inside:
    """An appliance with a hand inside and some USB devices."""

    appliance: Appliance
    agent: Agent
    as_root: dict[str, str]
    as_vmkernel: dict[str, str]


@pytest.fixture(scope="module")
def inside(folder: Path) -> Iterator[Inside]:
    """It is up, and all its drivers are there."""
    late, behind = (blank_disk(folder / f"{name}.img", 64 * MIB) for name in ("late", "behind"))
    disk = Drive("main", blank_disk(folder / "main.img", 2048 * MIB), Bus.VIRTIO, DISK)
    extra = (
        *("-device", "usb-kbd", "-device", "usb-net", "-device", "qemu-xhci,id=later"),
        *("-chardev", "null,id=nowhere"),
        *("-device", "usb-serial,chardev=nowhere,always-plugged=on"),
        *("-blockdev", f"driver=file,filename={late},node-name=late"),
        *("-blockdev", f"driver=file,filename={behind},node-name=behind"),
    )
    with plugged_in_with_agent(folder, disks=[disk], extra=extra) as (appliance, agent):
        appliance.machine.wait_for(
            "all drivers are loaded",
            lambda: (
                agent.run("/usr/bin/systemctl", "list-jobs", "--no-legend").strip() == ""
                and "kvm" in agent.names("/dev")
            ),
            timeout_s=90,
            interval_s=2.0,
        )
        agent.run("/usr/bin/python3", "-c", WRITE, SCRIPT, PROBE.read_text())
        as_root = json.loads(agent.run("/usr/bin/python3", SCRIPT, timeout_s=90).splitlines()[-1])
        settings = [
            line
            for line in (UNITS / "mica-vmkernel.service").read_text().splitlines()
            if KEPT.match(line)
        ]
        unit = [
            *("[Unit]", "DefaultDependencies=no", "[Service]", "Type=oneshot"),
            f"ExecStart=/usr/bin/python3 {SCRIPT} {OUTCOME}",
            *settings,
        ]
        path = f"/run/systemd/system/{UNIT}"
        agent.run("/usr/bin/python3", "-c", WRITE, path, "\n".join(unit) + "\n")
        agent.run("/usr/bin/systemctl", "daemon-reload")
        agent.run("/usr/bin/systemctl", "start", UNIT, timeout_s=120)
        yield Inside(appliance, agent, as_root, json.loads(agent.read(OUTCOME)))


def test_the_kernel_refuses_even_root(inside: Inside) -> None:
    refused = {name for name, error in inside.as_root.items() if error}
    assert not BY_THE_KERNEL - refused
    assert inside.as_root["load an unsigned module"] == "EKEYREJECTED"
    assert inside.as_root["load a signed module"] in ("", "EEXIST")
    assert inside.as_root["a user's own user namespace"] == "EPERM"
    assert {inside.as_root[name] for name in BY_THE_KERNEL if "execute" in name} == {"EACCES"}


def test_the_vmkernel_s_unit_refuses_the_rest_and_lets_it_work(inside: Inside) -> None:
    found = inside.as_vmkernel
    assert {name: error for name, error in found.items() if "PROBE FAILED" in error} == {}
    refused = {name for name, error in found.items() if error}
    assert refused == BY_THE_KERNEL | BY_THE_UNIT
    assert found["load a signed module"] == "EPERM"


def test_the_vmkernel_has_the_capabilities_that_its_unit_lists(inside: Inside) -> None:
    """The bounding set is the effective one: it is root."""
    settings = Policy.of((UNITS / "mica-vmkernel.service").read_text()).settings
    listed = {name for line in settings["CapabilityBoundingSet"] for name in line.split()}
    pid = inside.agent.main_pid("mica-vmkernel.service")
    status = dict(
        line.split(":\t", 1) for line in inside.agent.read(f"/proc/{pid}/status").splitlines()
    )
    for kind in ("CapBnd", "CapEff", "CapPrm"):
        assert bin(int(status[kind], 16)).count("1") == len(listed), kind
    assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")


def test_the_api_reports_what_is_in_force(inside: Inside) -> None:
    security = inside.appliance.host()["security"]
    assert security["lockdown"] == "confidentiality"
    assert {"lockdown", "yama", "landlock"} <= set(security["security_modules"])
    assert security["module_signatures_enforced"] is True
    assert security["modules_locked"] is False
    assert security["kexec_disabled"] is True
    assert security["unprivileged_user_namespaces"] is False
    assert security["usb_devices"] == "listed"
    assert security["secure_boot"] is False
    assert "spectre_v1" in security["cpu_mitigations"]
    codes = {finding["code"] for finding in inside.appliance.host()["findings"]}
    weak = {
        *("kernel-not-locked-down", "module-signatures-not-enforced", "kexec-allowed"),
        *("user-namespaces-allowed", "usb-devices-unrestricted"),
    }
    assert not codes & weak


def test_usb_devices_are_let_in_by_what_they_are(inside: Inside) -> None:
    """Storage and a network adapter of a bundle; no keyboard, no serial adapter, and each says why.
    The console's story has no line of the kernel's for them."""
    found = _usb(inside)
    assert found[NETWORK]["driver"] is not None
    assert (found[KEYBOARD]["driver"], found[KEYBOARD]["class_code"]) == (None, "03")
    assert found[SERIAL]["driver"] is None
    for kept_out in (KEYBOARD, SERIAL):
        assert found[kept_out]["finding"]["code"] == "usb-device-not-listed"
    assert found[NETWORK]["finding"] is None
    assert "not authorized" not in "\n".join(
        x.text for x in inside.appliance.machine.console.lines()
    )
    authorized = {
        ids: inside.agent.read(f"/sys/bus/usb/devices/{device['address']}/authorized").strip()
        for ids, device in found.items()
    }
    assert (authorized[NETWORK], authorized[KEYBOARD], authorized[SERIAL]) == ("1", "0", "0")
    assert inside.appliance.host()["stick"]["present"]


def test_a_usb_link_that_leads_nowhere_is_no_uplink(inside: Inside) -> None:
    """It has a carrier as soon as it is there: the host would ask it for an address in vain."""
    (member,) = inside.agent.read("/sys/class/net/bond0/bonding/slaves").split()
    assert "DRIVER=virtio_net" in inside.agent.read(f"/sys/class/net/{member}/device/uevent")


def test_storage_that_is_plugged_in_later_is_used(inside: Inside) -> None:
    machine = inside.appliance.machine
    machine.qmp("device_add", driver="usb-storage", id="late", drive="late", serial=LATE)
    _wait_disk(inside, LATE)


def test_what_is_plugged_in_behind_a_hub_later_is_let_in_too(inside: Inside) -> None:
    """The hub, storage behind it and a second network adapter; no keyboard behind it."""
    machine = inside.appliance.machine
    known = {device["address"] for device in _usb_devices(inside)}

    def add(driver: str, port: str, **more: str) -> None:
        machine.qmp("device_add", driver=driver, id=driver, bus="later.0", port=port, **more)

    add("usb-hub", "3")
    add("usb-storage", "3.1", drive="behind", serial=BEHIND)
    add("usb-net", "3.2")
    add("usb-kbd", "3.3")

    def plugged() -> dict[str, dict[str, Any]]:
        new = [device for device in _usb_devices(inside) if device["address"] not in known]
        return {f"{d['vendor_id']}:{d['product_id']}": d for d in new}

    _wait_disk(inside, BEHIND)
    machine.wait_for(
        "hub, storage and network adapter have drivers, the keyboard has none",
        lambda: sorted(d["driver"] is None for d in plugged().values()) == [False] * 3 + [True],
        timeout_s=60,
        interval_s=1.0,
    )
    found = plugged()
    assert found[HUB]["driver"] == "hub"
    assert found[NETWORK]["driver"] is not None
    assert found[KEYBOARD]["finding"]["code"] == "usb-device-not-listed"
    assert found[KEYBOARD]["address"].startswith(found[HUB]["address"] + ".")


def test_work_on_data_from_outside_opens_no_device(inside: Inside) -> None:
    """The slice of qemu-img, unpacking and fetching; the same process could, elsewhere."""
    paths = ("/dev/null", "/dev/urandom", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/tty1")
    said = inside.agent.run("/usr/bin/python3", "-I", "-c", OPEN_IN_SLICE, *paths)
    outcomes = dict(line.split(" ", 1) for line in said.splitlines())
    assert {path for path, outcome in outcomes.items() if outcome == "opened"} == {
        "/dev/null",
        "/dev/urandom",
    }
    assert set(outcomes.values()) == {"opened", "Operation not permitted"}


def test_work_on_data_from_outside_goes_on_without_devices(
    inside: Inside, guest: GuestFiles
) -> None:
    """An image is looked at, converted to another format and measured, all inside the slice."""
    appliance = inside.appliance
    appliance.create_datastore("main", DISK)
    appliance.upload("disk", guest.bios_disk, "raw")
    size = guest.bios_disk.stat().st_size
    made = appliance.create_volume("disk", size, source_image="disk")
    assert made["spec"]["format"] == "qcow2"
    assert made["status"]["allocated_bytes"] > 0


@pytest.mark.parametrize(
    "asked", ["net-pf-16-proto-16-family-nbd", "net-pf-40", "tcp-ulp-tls", "tty-ldisc-2"]
)
def test_what_a_process_asks_for_loads_no_module(inside: Inside, asked: str) -> None:
    """The kernel runs modprobe with such a name when a process uses what isn't there."""
    with pytest.raises(AssertionError, match="'code': 1"):
        inside.agent.run("/usr/sbin/modprobe", "--quiet", "--", asked)


def _wait_disk(inside: Inside, serial: str) -> None:
    inside.appliance.machine.wait_for(
        f"the disk {serial} is listed",
        lambda: any(d["serial"] == serial for d in inside.appliance.get("/v1/host/disks")["items"]),
        timeout_s=60,
        interval_s=1.0,
    )


def _usb_devices(inside: Inside) -> list[dict[str, Any]]:
    return [d for d in inside.appliance.get("/v1/host/devices")["items"] if d["bus"] == "usb"]


def _usb(inside: Inside) -> dict[str, dict[str, Any]]:
    return {f"{d['vendor_id']}:{d['product_id']}": d for d in _usb_devices(inside)}
