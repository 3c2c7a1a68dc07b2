"""The same stick under a legacy BIOS, a datastore on NVMe, and a restart that keeps everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest.old_pc import (
    OLD_PC_TEXT,
    WRITTEN_OFFSET,
    old_pc_disk,
    old_pc_lacks,
)
from tests.framework.machine import Firmware
from tests.framework.plugged_in import Setup, plugged_in, restarted

pytestmark = pytest.mark.story

GIB = 1 << 30
MIB = 1 << 20
NVME = "NVMEDISK01"
GUEST_S = 90.0


@dataclass
class Life:
    """What is known of the appliance from one start to the next."""

    setup: Setup
    token: str = ""
    uuid: str = ""
    fingerprint: str = ""
    vm_uuid: str = ""
    vm_spec: object = None
    done: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def life(folder: Path) -> Life:
    """A machine with a BIOS, an e1000e card and a blank NVMe disk."""
    disk = Drive("nvme", blank_disk(folder / "nvme.img", 4 * GIB), Bus.NVME, NVME)
    setup = Setup(folder=folder, firmware=Firmware.BIOS, disks=(disk,), nic="e1000e")
    return Life(setup)


@pytest.fixture(scope="module")
def first_start(life: Life) -> Iterator[Appliance]:
    """The fresh stick, claimed."""
    with plugged_in(life.setup) as appliance:
        host = appliance.host()
        life.token = appliance.token or ""
        life.uuid = host["uuid"]
        life.fingerprint = appliance.machine.certificate_sha256()
        yield appliance


def test_the_stick_starts_under_bios(first_start: Appliance) -> None:
    first_start.machine.wait_for(
        "KVM is there",
        lambda: first_start.host()["virtualisation"]["accelerator"] == "kvm",
        timeout_s=60,
        interval_s=1.0,
    )
    host = first_start.host()
    assert host["boot"]["firmware"] == "bios"
    assert host["stick"]["present"]
    assert [finding for finding in host["findings"] if finding["severity"] == "error"] == []


def test_a_datastore_on_an_nvme_disk(first_start: Appliance, life: Life) -> None:
    assert first_start.disk(NVME)["transport"] == "nvme"
    datastore = first_start.create_datastore("fast", NVME, filesystem="ext4")
    assert datastore["status"]["state"] == "available"
    assert datastore["status"]["filesystem"] == "ext4"
    first_start.create_volume("kept", 256 * MIB, datastore="fast")
    vm = first_start.create_vm("kept", datastore="fast", disks=[{"volume": "kept"}], nics=[{}])
    life.vm_uuid = vm["status"]["uuid"]
    life.vm_spec = vm["spec"]
    life.done.append("datastore")


def test_a_guest_of_32_bits_on_ide_and_e1000(first_start: Appliance) -> None:
    """An old PC on KVM: its BIOS reads an IDE disk, its program has 32 bits and no drivers but its
    own; what it wrote is on the volume, and its packets are counted the right way round."""
    disk = old_pc_disk()
    first_start.upload("old-pc", disk, "raw", datastore="fast")
    first_start.create_volume(
        "old-disk", disk.stat().st_size, source_image="old-pc", datastore="fast", kind="raw"
    )
    vm = first_start.create_vm(
        "old",
        datastore="fast",
        firmware="bios",
        memory_bytes=64 * MIB,
        disks=[{"volume": "old-disk", "bus": "ide"}],
        nics=[{"model": "e1000"}],
        display="none",
    )
    first_start.start("old")
    with first_start.console("old") as console:
        console.expect("MICA OLD PC DONE", timeout_s=GUEST_S, what="the guest has done everything")
        assert not old_pc_lacks(console.text(), vm["spec"]["nics"][0]["mac"]), console.text()
    status = first_start.get("/v1/vms/old")["status"]
    assert status["accelerator"] == "kvm"
    assert status["machine_type"].startswith("pc-i440fx-")
    (nic,) = first_start.get("/v1/vms/old/stats")["nics"]
    assert nic["sent_packets"] >= 1
    assert nic["received_packets"] >= 1
    first_start.power_off("old")
    end = WRITTEN_OFFSET + len(OLD_PC_TEXT) - 1
    written = first_start.call(
        "GET",
        "/v1/volumes/old-disk/data",
        headers={"range": f"bytes={WRITTEN_OFFSET}-{end}"},
        expect=206,
    )
    assert written.text == OLD_PC_TEXT[::-1]


def test_the_api_powers_the_machine_off(first_start: Appliance, life: Life) -> None:
    first_start.create_token("reader")
    first_start.call("POST", "/v1/host/power", json={"action": "shutdown"}, expect=202)
    first_start.machine.wait_off(timeout_s=90)
    life.done.append("off")


def test_a_restart_keeps_everything(life: Life) -> None:
    assert life.done == ["datastore", "off"], "the tests before this one did not succeed"
    with restarted(life.setup, token=life.token) as appliance:
        assert appliance.machine.certificate_sha256() == life.fingerprint
        assert appliance.host()["uuid"] == life.uuid
        assert appliance.get("/v1")["claimed"] is True
        assert "Claim code:" not in appliance.machine.console.text()
        assert {token["id"] for token in appliance.get("/v1/tokens")["items"]} == {
            "admin",
            "reader",
        }
        appliance.machine.wait_for(
            "the datastore is available",
            lambda: appliance.get("/v1/datastores/fast")["status"]["state"] == "available",
            timeout_s=60,
        )
        vm = appliance.get("/v1/vms/kept")
        assert vm["status"]["uuid"] == life.vm_uuid
        assert vm["status"]["state"] == "stopped"
        assert vm["spec"] == life.vm_spec
