"""Changes of a jailed guest on KVM: its disk moves while it writes, devices come and go.

A jailed QEMU sees the files of its start alone: everything that comes later reaches it as a
descriptor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.appliance import Appliance
from tests.framework.console import Console
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles, pattern_crc
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.guest.pattern import pattern
from tests.framework.plugged_in import Setup, plugged_in

GIB = 1 << 30
MIB = 1 << 20
GUEST_S = 90.0
MAC = "52:54:00:12:34:99"


@pytest.fixture(scope="module")
def appliance(folder: Path, guest: GuestFiles) -> Iterator[Appliance]:
    """A machine with two datastores and the guest `web`, running."""
    disks = tuple(
        Drive(name, blank_disk(folder / f"{name}.img", 4 * GIB), Bus.VIRTIO, serial)
        for name, serial in (("main", "MAINDISK01"), ("second", "SECONDDISK"))
    )
    with plugged_in(Setup(folder=folder, disks=disks)) as appliance:
        appliance.create_datastore("main", "MAINDISK01")
        appliance.create_datastore("second", "SECONDDISK", filesystem="ext4")
        appliance.upload("kernel", guest.kernel, "linux-kernel")
        appliance.upload("initrd", guest.initrd, "linux-initrd")
        appliance.create_volume("data", 64 * MIB)
        appliance.create_volume("more", 24 * MIB)
        appliance.create_vm(
            "web",
            firmware="bios",
            boot={
                "kernel": {
                    "kernel": "kernel",
                    "initrd": "initrd",
                    "cmdline": f"{COMMAND_LINE} mica.load=virtio_net",
                }
            },
            cpus={"count": 1, "max_count": 2},
            disks=[{"volume": "data"}],
        )
        appliance.start("web")
        yield appliance


def _patch(appliance: Appliance, path: str, spec: dict[str, object], **params: object) -> None:
    answer = appliance.call(
        "PATCH",
        path,
        json={"spec": spec},
        params=params,
        headers={"content-type": "application/merge-patch+json"},
    )
    if answer.status_code == 202:
        appliance.settle(answer.json())


def _report(console: Console) -> str:
    """What the guest sees now."""
    after = console.news()
    console.send("online\nreport\n")
    console.expect("MICA GUEST UP", timeout_s=GUEST_S, what="report", after=after)
    return "\n".join(line.text for line in console.lines()[after:])


def test_a_jailed_disk_moves_while_the_guest_writes(appliance: Appliance) -> None:
    with appliance.console("web") as console:
        console.expect("MICA GUEST UP", timeout_s=GUEST_S, what="the guest")
        console.send(f"churn vda {8 * MIB} 6\n")
        began_s = time.monotonic()
        _patch(appliance, "/v1/volumes/data", {"datastore": "second", "format": "raw"}, wait=60)
        volume = appliance.get("/v1/volumes/data")
        assert (volume["spec"]["datastore"], volume["spec"]["format"]) == ("second", "raw")
        _, line = console.expect(r"churn vda \d+: done", timeout_s=GUEST_S, what="churn")
        assert line.time_s > began_s, "the guest had written everything before the move"
        answer = console.ask(f"sum vda 0 {8 * MIB}", timeout_s=GUEST_S)
        assert answer.endswith(pattern_crc(0, 8 * MIB, 6))


def test_devices_come_and_go_in_the_jail(appliance: Appliance) -> None:
    disks = [{"volume": "data"}, {"volume": "more"}]
    _patch(appliance, "/v1/vms/web", {"disks": disks, "nics": [{"mac": MAC}], "cpus": {"count": 2}})
    with appliance.console("web") as console:
        wanted = (f"guest disk vdb {24 * MIB}", MAC, "guest cpus 2")
        seen = ""
        for _ in range(20):
            seen = _report(console)
            if all(text in seen for text in wanted):
                break
            time.sleep(1)
        assert all(text in seen for text in wanted), seen
        assert "done" in console.ask(f"write vdb 0 {MIB} 7", timeout_s=GUEST_S)
        _patch(appliance, "/v1/vms/web", {"disks": disks[:1], "nics": []})
        seen = _report(console)
        assert "vdb" not in seen
        assert MAC not in seen


@pytest.mark.story
def test_what_the_guest_wrote_meanwhile_is_in_the_new_file(appliance: Appliance) -> None:
    """Seen without the QEMU that moved it; the last test of this machine."""
    appliance.power_off("web")
    header = {"range": f"bytes=0-{8 * MIB - 1}"}
    answer = appliance.call("GET", "/v1/volumes/data/data", headers=header, expect=206)
    assert answer.content == pattern(0, 8 * MIB, 6)
