"""The stick under UEFI: from power-on to guests of many kinds, and off again."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.idle_stick import IdleStick
from tests.framework.answering import OUTSIDE, answering
from tests.framework.appliance import MERGE_PATCH, Appliance, sha256_of
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles, pattern_crc
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.hosted import qemu_programs
from tests.framework.installer import FIRST_SCREEN, Installer
from tests.framework.machine import HOST_ADDRESS, NIC_MAC
from tests.framework.nfs_server import NFS_HOST
from tests.framework.plugged_in import STICK_SERIAL, Setup, plugged_in
from tests.framework.rfb import Viewer
from tests.framework.web_server import stored_zstd, web_server

GIB = 1 << 30
MIB = 1 << 20
MAIN, FULL = "MAINDISK01", "FULLDISK01"
GUEST_S = 90.0
INSTALLER_S = 240.0


@pytest.fixture(scope="module")
def fresh(folder: Path, guest: GuestFiles, idle_stick: IdleStick) -> Iterator[Appliance]:
    """A fresh stick at its API, not claimed yet, with a blank disk and one that holds data."""
    full = blank_disk(folder / "full.img", 1 * GIB)
    with full.open("r+b") as file:
        file.write(guest.bios_disk.read_bytes())
    disks = (
        Drive("main", blank_disk(folder / "main.img", 8 * GIB), Bus.VIRTIO, MAIN),
        Drive("full", full, Bus.VIRTIO, FULL),
    )
    with plugged_in(Setup(folder=folder, disks=disks), claim=False) as appliance:
        idle_stick.begin()
        yield appliance


@pytest.fixture(scope="module")
def claimed(fresh: Appliance) -> Appliance:
    """The same, claimed by the code on its console."""
    if fresh.token is None:
        fresh.claim()
    return fresh


@pytest.fixture(scope="module")
def stored(claimed: Appliance) -> Appliance:
    """The same with a datastore."""
    claimed.create_datastore("main", MAIN)
    return claimed


@pytest.fixture(scope="module")
def counting(stored: Appliance, guest: GuestFiles) -> Appliance:
    """The same with the guest `tiny`, running from kernel and initrd."""
    stored.upload("tiny-kernel", guest.kernel, "linux-kernel")
    stored.upload("tiny-initrd", guest.initrd, "linux-initrd")
    stored.create_volume("tiny-data", 64 * MIB)
    stored.create_vm(
        "tiny",
        firmware="bios",
        boot={
            "kernel": {
                "kernel": "tiny-kernel",
                "initrd": "tiny-initrd",
                "cmdline": f"{COMMAND_LINE} mica.tag=direct",
            }
        },
        disks=[{"volume": "tiny-data"}],
        nics=[{}],
    )
    stored.start("tiny")
    return stored


def test_console_shows_the_fingerprint_that_the_api_presents(fresh: Appliance) -> None:
    assert fresh.shown_fingerprint() == fresh.machine.certificate_sha256()


def test_nothing_is_told_without_a_token(fresh: Appliance) -> None:
    for path in ("/v1/host", "/v1/vms", "/v1/tokens", "/v1/events"):
        answer = fresh.call("GET", path, expect=401, authorised=False)
        assert answer.headers["content-type"].startswith("application/problem+json")
    info = fresh.call("GET", "/v1", expect=200, authorised=False).json()
    assert info == {"product": "Mica", "api_version": "v1", "claimed": False}


def test_a_wrong_claim_code_is_refused(fresh: Appliance) -> None:
    fresh.call("POST", "/v1/claim", json={"code": "00000-00000"}, expect=401)


def test_the_code_on_the_console_claims_once(claimed: Appliance) -> None:
    assert claimed.get("/v1/whoami")["spec"]["role"] == "admin"
    code = claimed.claim_code()
    claimed.call("POST", "/v1/claim", json={"code": code}, expect=409)
    info = claimed.get("/v1")
    assert (info["claimed"], info["mode"]) == (True, "appliance")


def test_the_host_tells_what_it_is(claimed: Appliance) -> None:
    host = claimed.host()
    assert host["mode"] == "appliance"
    assert host["boot"]["firmware"] == "uefi"
    assert host["cpu"]["vendor"] == "AMD"
    assert host["cpu"]["threads"] == 2
    assert host["virtualisation"]["extension"] == "svm"
    assert host["virtualisation"]["accelerator"] == "kvm"
    assert host["memory"]["total_bytes"] > 1800 * MIB
    assert host["stick"]["present"]
    assert host["stick"]["serial"] == STICK_SERIAL
    assert any(link["carrier"] for link in host["links"])
    assert [finding for finding in host["findings"] if finding["severity"] == "error"] == []
    assert host["tls_fingerprint_sha256"].replace(":", "").lower() == (
        claimed.machine.certificate_sha256()
    )


def test_an_idle_host_uses_at_most_200_mib(claimed: Appliance) -> None:
    """The API answers while drivers are loaded still; what counts is what lasts after that."""
    end = time.monotonic() + 120
    used = [_used_bytes(claimed)]
    while len(used) < 5 or max(used[-5:]) > 200 * MIB:
        told = [f"{value / MIB:.1f}" for value in used]
        assert time.monotonic() < end, f"MiB in use, every two seconds: {told}"
        time.sleep(2)
        used.append(_used_bytes(claimed))


def _used_bytes(host: Appliance) -> int:
    memory = host.host()["memory"]
    used: int = memory["total_bytes"] - memory["available_bytes"]
    return used


def test_devices_are_listed_with_their_drivers(claimed: Appliance) -> None:
    devices = claimed.get("/v1/host/devices", limit=1000)["items"]
    drivers = {device["driver"] for device in devices}
    assert {"virtio-pci", "xhci_hcd", "usb-storage"} <= drivers
    network = [device for device in devices if device["class_code"].startswith("02")]
    assert network
    assert all(device["bundle"] for device in network)


def test_a_disk_with_data_is_not_wiped_unasked(claimed: Appliance) -> None:
    disk = claimed.disk(FULL)
    assert not disk["blank"]
    assert claimed.disk(MAIN)["blank"]
    assert claimed.disk(STICK_SERIAL)["is_stick"]
    written = claimed.machine.written_bytes("full")
    confirmations: list[tuple[dict[str, list[str]], str]] = [
        ({}, "/wipe_serials"),
        ({"wipe_serials": [MAIN]}, "/wipe_serials/0"),
    ]
    for confirmation, pointer in confirmations:
        answer = claimed.call(
            "PUT",
            "/v1/datastores/stolen",
            json={"spec": {"kind": "local", "disk": disk["id"]}, **confirmation},
            headers={"if-none-match": "*"},
            expect=409,
        ).json()
        assert answer["code"] == "wipe-not-confirmed"
        assert [error["pointer"] for error in answer["errors"]] == [pointer]
    assert claimed.machine.written_bytes("full") == written


def test_the_stick_is_no_place_for_a_datastore(claimed: Appliance) -> None:
    disk = claimed.disk(STICK_SERIAL)["id"]
    body = {"spec": {"kind": "local", "disk": disk}, "wipe_serials": [disk]}
    answer = claimed.call(
        "PUT",
        "/v1/datastores/stick",
        json=body,
        params={"wait": 60},
        headers={"if-none-match": "*"},
        expect=(200, 202, 400, 409, 422),
    ).json()
    if "progress" in answer:
        with pytest.raises(AssertionError, match="failed"):
            claimed.settle(answer)


def test_a_datastore_on_a_virtio_disk(stored: Appliance) -> None:
    datastore = stored.get("/v1/datastores/main")
    assert datastore["status"]["state"] == "available"
    assert datastore["status"]["filesystem"] == "xfs"
    assert datastore["status"]["free_bytes"] > 7 * GIB
    assert stored.disk(MAIN)["datastore"] == "main"


def test_images_are_pulled_unpacked_and_converted_in_their_jail(
    stored: Appliance, folder: Path
) -> None:
    """What hosted mode can't show: other users, and none but the files that they are given."""
    data = os.urandom(3 * MIB) + bytes(5 * MIB)
    disk = folder / "template.raw"
    disk.write_bytes(data)
    qemu_img = qemu_programs(folder)["qemu-img"]
    vmdk, packed = folder / "template.vmdk", folder / "template.vmdk.zst"
    convert = [qemu_img, "convert", "-f", "raw", "-O", "vmdk", disk, vmdk]
    subprocess.run([str(word) for word in convert], check=True)
    packed.write_bytes(stored_zstd(vmdk.read_bytes()))
    with web_server({"template": packed.read_bytes()}) as web:
        url = f"http://{NFS_HOST}:{web.port}/break/template"
        spec = {"datastore": "main", "url": url, "sha256": sha256_of(packed)}
        pulled = stored.call("POST", "/v1/images/template/pull", json={"spec": spec}).json()
        stored.settle(pulled)
    image = stored.get("/v1/images/template")
    assert image["spec"]["format"] == "qcow2"
    assert image["status"]["origin"]["compression"] == "zstd"
    volume = {
        "datastore": "main",
        "size_bytes": len(data),
        "format": "raw",
        "source_image": "template",
    }
    stored.create("/v1/volumes/template", {"spec": volume}, works=True)
    tail = {"range": f"bytes={MIB}-"}
    answer = stored.call("GET", "/v1/volumes/template/data", headers=tail, expect=206)
    assert answer.content == data[MIB:]
    capture = {"spec": {"volume": "template", "compress": True}}
    stored.settle(stored.call("POST", "/v1/images/again/capture", json=capture).json())
    assert stored.get("/v1/images/again")["status"]["virtual_size_bytes"] == len(data)
    for path in ("volumes/template", "images/template", "images/again"):
        stored.call("DELETE", f"/v1/{path}")


def test_a_guest_from_kernel_and_initrd(counting: Appliance) -> None:
    with counting.console("tiny") as console:
        console.expect("MICA GUEST READY direct", timeout_s=GUEST_S, what="the guest's first line")
        console.expect("MICA GUEST UP", timeout_s=30, what="the guest sees its devices")
        console.expect(r"tick 2", timeout_s=30, what="the guest counts")
        assert "guest cpus 1" in console.text()
        assert f"guest disk vda {64 * MIB}" in console.text()
    vm = counting.get("/v1/vms/tiny")
    assert vm["status"]["state"] == "running"
    assert vm["status"]["accelerator"] == "kvm"


def test_a_guest_writes_its_disk(counting: Appliance) -> None:
    with counting.console("tiny") as console:
        console.expect("MICA GUEST UP", timeout_s=GUEST_S, what="the guest is up")
        length = 1 * MIB
        assert console.ask(f"write vda 4096 {length} 77", timeout_s=30).endswith("done")
        summed = console.ask(f"sum vda 4096 {length}", timeout_s=30)
        assert summed.endswith(pattern_crc(4096, length, 77))
    assert counting.get("/v1/volumes/tiny-data")["status"]["attached_to"] == "tiny"


def test_a_guest_goes_back_with_its_memory(counting: Appliance) -> None:
    """Its counter and its disk: to the snapshot, and on from there."""
    before, after = (f"write vda {8 * MIB} {MIB} {seed}" for seed in (5, 6))
    with counting.console("tiny") as console:
        console.expect("MICA GUEST UP", timeout_s=GUEST_S, what="the guest is up")
        assert console.ask(before, timeout_s=30).endswith("done")
        boot = console.ask("boot", timeout_s=30)
    taken = {"spec": {"memory": True}}
    counting.create("/v1/vms/tiny/snapshots/then", taken, works=True)
    snapshot = counting.get("/v1/vms/tiny/snapshots/then")
    assert snapshot["status"]["memory_bytes"] > MIB
    with counting.console("tiny") as console:
        console.expect(r"tick \d+", timeout_s=30, what="the guest counts on")
        late = _last_tick(console.text()) + 20
        assert console.ask(after, timeout_s=30).endswith("done")
        console.expect(rf"tick {late}\b", timeout_s=60, what="the guest counts on")
    counting.act("/v1/vms/tiny/snapshots/then/revert")
    with counting.console("tiny") as console:
        assert console.ask("boot", timeout_s=60) == boot, "it started anew"
        position = console.count()
        match, _ = console.expect(
            r"^tick (\d+)$", timeout_s=60, what="the guest counts on", after=position
        )
        assert int(match[1]) < late, console.text()
        summed = console.ask(f"sum vda {8 * MIB} {MIB}", timeout_s=30)
        assert summed.endswith(pattern_crc(8 * MIB, MIB, 5))


def _last_tick(text: str) -> int:
    return max(int(number) for number in re.findall(r"(?m)^tick (\d+)$", text))


def test_a_guest_on_the_default_port_group_reaches_the_outside(counting: Appliance) -> None:
    with answering("a line from outside") as port, counting.console("tiny") as console:
        console.expect(r"tick \d+", timeout_s=GUEST_S, what="the guest counts")
        answer = console.ask("net", timeout_s=60)
        assert "address 10.0.2." in answer, answer
        assert "address 10.0.2.15 " not in answer, "the guest has the host's own address"
        fetched = console.ask(f"fetch {OUTSIDE} {port}", timeout_s=60)
        assert fetched == "a line from outside"


def test_what_a_guest_received_is_counted_as_received(counting: Appliance) -> None:
    size = 2 * MIB
    (before,) = counting.get("/v1/vms/tiny/stats")["nics"]
    with answering("x" * (size - 1)) as port, counting.console("tiny") as console:
        assert console.ask(f"drain {OUTSIDE} {port}", timeout_s=60) == str(size)
    (after,) = counting.get("/v1/vms/tiny/stats")["nics"]
    came = after["received_bytes"] - before["received_bytes"]
    went = after["sent_bytes"] - before["sent_bytes"]
    assert size < came < 1.3 * size
    assert 0 < went < size / 4
    assert after["received_packets"] > before["received_packets"]


def test_a_guest_from_a_bios_disk(stored: Appliance, guest: GuestFiles) -> None:
    stored.upload("bios-disk", guest.bios_disk, "raw")
    stored.create_volume("bios-root", guest.bios_disk.stat().st_size, source_image="bios-disk")
    stored.create_vm("from-bios", firmware="bios", disks=[{"volume": "bios-root"}])
    stored.start("from-bios")
    with stored.console("from-bios") as console:
        console.expect(
            "MICA GUEST READY bios-disk", timeout_s=GUEST_S, what="the guest's first line"
        )
        console.expect("MICA GUEST UP", timeout_s=30, what="the guest knows its power button")
    stored.act("/v1/vms/from-bios/shutdown")
    stored.wait_vm_state("from-bios", "stopped", timeout_s=60)
    _clones_share_blocks(stored)


def _clones_share_blocks(stored: Appliance) -> None:
    """Of the VM that is off: a full clone on XFS copies nothing; a linked one starts in its jail,
    which has the template's disk to read, and becomes whole in qemu-img's."""
    root = stored.get("/v1/volumes/bios-root")["status"]
    assert root["shared_bytes"] == 0
    stored.act("/v1/vms/from-bios/clone", {"id": "copied"})
    copied = stored.get("/v1/volumes/copied-disk0")["status"]
    assert copied["shared_bytes"] > MIB
    assert copied["allocated_bytes"] - copied["shared_bytes"] < MIB
    as_template = {"spec": {"template": True}}
    headers = {"content-type": MERGE_PATCH}
    stored.call("PATCH", "/v1/vms/from-bios", json=as_template, headers=headers)
    stored.act("/v1/vms/from-bios/clone", {"id": "linked", "spec": {"linked": True}})
    assert stored.get("/v1/volumes/linked-disk0")["status"]["backing"] == "bios-root"
    stored.start("linked")
    with stored.console("linked") as console:
        console.expect("MICA GUEST READY bios-disk", timeout_s=GUEST_S, what="a linked clone")
    stored.power_off("linked")
    stored.act("/v1/volumes/linked-disk0/flatten")
    whole = stored.get("/v1/volumes/linked-disk0")["status"]
    assert whole["backing"] is None
    assert whole["allocated_bytes"] > MIB


def test_a_tpm_and_what_windows_uses_of_hyper_v(stored: Appliance) -> None:
    """QEMU starts only once the TPM's emulator, in the VM's jail, has answered; and on KVM only
    where Hyper-V's interfaces go together."""
    stored.create_vm("with-tpm", firmware="bios", tpm=True, guest_os="windows")
    stored.start("with-tpm")
    stored.wait_vm_state("with-tpm", "running", timeout_s=10)
    stored.act("/v1/vms/with-tpm/power-off")
    stored.wait_vm_state("with-tpm", "stopped", timeout_s=30)


def test_debian_installer_from_kernel_and_initrd(
    stored: Appliance, debian_installer: Installer
) -> None:
    stored.upload("installer-kernel", debian_installer.kernel, "linux-kernel")
    stored.upload("installer-initrd", debian_installer.initrd, "linux-initrd")
    stored.create_vm(
        "debian",
        firmware="bios",
        memory_bytes=900 * MIB,
        boot={
            "kernel": {
                "kernel": "installer-kernel",
                "initrd": "installer-initrd",
                "cmdline": "console=ttyS0 --- quiet",
            }
        },
        nics=[{}],
    )
    stored.start("debian")
    with stored.console("debian") as console:
        console.expect(
            FIRST_SCREEN, timeout_s=INSTALLER_S, what="the installer's first screen", partial=True
        )
    stored.power_off("debian")


def test_debian_installer_from_its_iso(stored: Appliance, debian_installer: Installer) -> None:
    """Its menu is on the screen alone: look at it and type by VNC, as an administrator would."""
    stored.upload("mini-iso", debian_installer.iso, "iso")
    stored.create_vm(
        "debian-iso",
        firmware="bios",
        memory_bytes=900 * MIB,
        cdroms=[{"image": "mini-iso"}],
        boot={"order": ["cdrom"]},
    )
    stored.start("debian-iso")
    viewer = Viewer(stored.open_console("debian-iso", "vnc"))
    viewer.wait_for_picture("the installer's menu", lit=0.9, colours=100, timeout_s=120)
    viewer.press("tab")
    viewer.type(" console=ttyS0")
    viewer.press("enter")
    with stored.console("debian-iso") as console:
        console.expect(
            FIRST_SCREEN, timeout_s=INSTALLER_S, what="the installer's first screen", partial=True
        )
    viewer.close()
    stored.power_off("debian-iso")


def test_guests_that_come_and_go_leave_the_hosts_address_alone(counting: Appliance) -> None:
    shown = re.findall(r"^API: https://(\d[\d.]+)/$", counting.machine.console.text(), re.MULTILINE)
    assert set(shown) == {HOST_ADDRESS}
    switch = next(link for link in counting.host()["links"] if link["name"] == "vswitch0")
    assert switch["mac"] == NIC_MAC


def test_the_power_button_ends_guests_in_order(counting: Appliance) -> None:
    """The last test of this machine: the guest is asked, then the machine goes off."""
    with counting.console("tiny") as console:
        console.expect(r"tick \d+", timeout_s=GUEST_S, what="the guest counts")
        counting.machine.press_power_button()
        console.expect("power button", timeout_s=60, what="the guest is asked to end")
        counting.machine.wait_off(timeout_s=90)
