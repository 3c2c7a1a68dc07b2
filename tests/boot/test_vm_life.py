"""A guest on real KVM runs out of space, sleeps on disk, and wakes with its host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.guest.pattern import pattern_crc
from tests.framework.machine import Firmware
from tests.framework.plugged_in import Setup, plugged_in

MIB = 1 << 20
DISK = "LIFEDISK01"
DISK_BYTES = 1024 * MIB
WRITTEN_BYTES = 48 * MIB
LEFT_BYTES = 24 * MIB
"""Storage itself keeps 16 MiB back."""
AGAIN_S = 150.0


@pytest.fixture(scope="module")
def mica(folder: Path, guest: GuestFiles) -> Iterator[Appliance]:
    """A small datastore with a guest that counts."""
    disk = Drive("main", blank_disk(folder / "main.img", DISK_BYTES), Bus.VIRTIO, DISK)
    setup = Setup(
        folder=folder, firmware=Firmware.BIOS, disks=(disk,), extra=("-action", "reboot=reset")
    )
    with plugged_in(setup) as appliance:
        appliance.create_datastore("main", DISK)
        appliance.upload("kernel", guest.kernel, "linux-kernel")
        appliance.upload("initrd", guest.initrd, "linux-initrd")
        appliance.create_volume("data", 128 * MIB)
        boot = {"kernel": "kernel", "initrd": "initrd", "cmdline": COMMAND_LINE}
        appliance.create_vm(
            "sleeper",
            firmware="bios",
            boot={"kernel": boot},
            cpus={"count": 1, "max_count": 2},
            memory={"max_bytes": 1024 * MIB},
            disks=[{"volume": "data"}],
        )
        appliance.start("sleeper")
        with appliance.console("sleeper") as console:
            console.expect(r"tick 1", timeout_s=90, what="the guest counts")
        yield appliance


def _now(mica: Appliance) -> tuple[str, int]:
    """What only the guest's memory holds: which start of its kernel this is, and its next count.

    It is asked, so that nothing of what it said before can pass for it.
    """
    with mica.console("sleeper") as console:
        boot = console.ask("boot", timeout_s=60)
        match, _ = console.expect(
            r"^tick (\d+)$", timeout_s=60, what="the guest counts", after=console.count()
        )
        return boot, int(match.group(1))


def test_memory_and_a_processor_are_added(mica: Appliance) -> None:
    """What it sleeps and wakes with from here on."""
    with mica.console("sleeper") as console:

        def has() -> tuple[int, int]:
            position = console.news()
            console.send("online\nreport\n")
            match, _ = console.expect(
                r"guest cpus (\d+) memory_kib (\d+)",
                timeout_s=30,
                what="what it has",
                after=position,
            )
            return int(match[1]), int(match[2])

        def has_taken_it_up() -> bool:
            cpus, memory_kib = has()
            return cpus == 2 and memory_kib > before + 120 * 1024

        cpus, before = has()
        assert cpus == 1
        _patch(mica, {"memory_bytes": 384 * MIB, "cpus": {"count": 2}})
        mica.machine.wait_for("the guest has more", has_taken_it_up, timeout_s=60)
    assert mica.get("/v1/vms/sleeper/stats")["memory"]["assigned_bytes"] == 384 * MIB


def test_it_sleeps_on_disk_and_goes_on(mica: Appliance) -> None:
    boot, before = _now(mica)
    mica.act("/v1/vms/sleeper/suspend")
    vm = mica.get("/v1/vms/sleeper")
    assert vm["status"]["state"] == "suspended"
    assert vm["status"]["memory_image"]["accelerator"] == "kvm"
    mica.act("/v1/vms/sleeper/resume")
    assert mica.vm_state("sleeper") == "running"
    same, after = _now(mica)
    assert same == boot, "it started anew"
    assert before < after < before + 60


def test_a_full_datastore_costs_no_data(mica: Appliance) -> None:
    free = mica.get("/v1/datastores/main")["status"]["free_bytes"]
    filler = (free - LEFT_BYTES) // MIB * MIB
    spec = {"datastore": "main", "size_bytes": filler, "format": "raw", "allocation": "thick"}
    mica.create("/v1/volumes/filler", {"spec": spec}, works=True)
    with mica.console("sleeper") as console:
        console.send(f"write vda 0 {WRITTEN_BYTES} 5\n")
        mica.wait_vm_state("sleeper", "paused", timeout_s=90)
        assert "no space" in mica.get("/v1/vms/sleeper")["status"]["reason"]
        mica.call("DELETE", "/v1/volumes/filler", expect=204)
        mica.wait_vm_state("sleeper", "running", timeout_s=90)
        console.expect(rf"write vda 0 {WRITTEN_BYTES}: done", timeout_s=90, what="it is written")
        console.send(f"sum vda 0 {WRITTEN_BYTES}\n")
        crc = pattern_crc(0, WRITTEN_BYTES, 5)
        console.expect(rf"sum vda .*: {crc}", timeout_s=90, what="nothing is lost")


def test_it_sleeps_and_wakes_with_its_host(mica: Appliance) -> None:
    boot, before = _now(mica)
    _patch(mica, {"autostart": {"enabled": True}, "stop": {"action": "suspend"}})
    position = mica.machine.console.count()
    mica.call("POST", "/v1/host/power", json={"action": "reboot"}, expect=202)
    mica.machine.console.expect(
        r"vmkernel started", timeout_s=AGAIN_S, what="the host starts again", after=position
    )
    mica.machine.wait_api(timeout_s=AGAIN_S)
    mica.wait_vm_state("sleeper", "running", timeout_s=AGAIN_S)
    same, after = _now(mica)
    assert same == boot, "it started anew"
    assert before < after < before + 120


def _patch(mica: Appliance, spec: dict[str, object]) -> None:
    answer = mica.call(
        "PATCH",
        "/v1/vms/sleeper",
        json={"spec": spec},
        headers={"content-type": "application/merge-patch+json"},
    )
    if answer.status_code == 202:
        mica.settle(answer.json())
