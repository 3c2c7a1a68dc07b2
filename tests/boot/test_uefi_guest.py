"""A guest that runs OVMF on nested KVM, in a machine of its own because of the emulator's fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles
from tests.framework.plugged_in import Setup, plugged_in
from tests.framework.retries import ATTEMPTS, SLOW_GUEST_TIMERS, past_emulator_faults

GIB = 1 << 30
DISK = "UEFIGUEST01"
FIRST_LINE_S = 120.0


@pytest.mark.timeout(180 * ATTEMPTS)
def test_a_guest_from_an_ovmf_disk(folder: Path, guest: GuestFiles) -> None:
    def attempt() -> None:
        disk = Drive("main", blank_disk(folder / "main.img", 4 * GIB), Bus.VIRTIO, DISK)
        setup = Setup(folder=folder, disks=(disk,), kernel_arguments=SLOW_GUEST_TIMERS)
        with plugged_in(setup) as appliance:
            appliance.create_datastore("main", DISK)
            appliance.upload("uefi-disk", guest.uefi_disk, "raw")
            size = guest.uefi_disk.stat().st_size
            appliance.create_volume("uefi-root", size, source_image="uefi-disk")
            # Every port that the firmware looks at makes the emulator's fault likelier.
            appliance.create_vm(
                "from-uefi",
                firmware="uefi",
                disks=[{"volume": "uefi-root"}],
                hot_plug={"disks": 0, "nics": 0},
            )
            appliance.start("from-uefi")
            with appliance.console("from-uefi") as console:
                console.expect(
                    "MICA GUEST READY uefi-disk",
                    timeout_s=FIRST_LINE_S,
                    what="the guest's first line",
                )
                console.expect("firmware uefi", timeout_s=30, what="the guest sees its firmware")
            assert appliance.get("/v1/vms/from-uefi")["status"]["accelerator"] == "kvm"

    past_emulator_faults("a guest from an OVMF disk", attempt)
