"""Hardware that doesn't go together is refused, by the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from vmkernel.devices import Family
from vmkernel.model import (
    BootSpec,
    CdromSpec,
    Clock,
    ClockSpec,
    CpuSpec,
    DiskBus,
    DiskCache,
    DiskLimits,
    DiskSpec,
    Firmware,
    GuestOs,
    HugePages,
    KernelBoot,
    MemorySpec,
    NicSpec,
    Rate,
    VmSpec,
    WatchdogModel,
    WatchdogSpec,
)
from vmkernel.vm.spec.hardware import hardware_problems

MIB = 1 << 20
KERNEL = BootSpec(kernel=KernelBoot(kernel="k"))


def disk(**fields: Any) -> dict[str, Any]:
    return {"disks": (DiskSpec(volume="v", **fields),)}


def limits(**rates: Rate) -> dict[str, Any]:
    return disk(limits=DiskLimits(**rates))


GOOD: list[dict[str, Any]] = [
    {},
    {"cpus": CpuSpec(count=6)},
    {"cpus": CpuSpec(count=1, max_count=255)},
    {"cpus": CpuSpec(count=3, max_count=8)},
    {"cpus": CpuSpec(count=8, sockets=2)},
    {"cpus": CpuSpec(count=8, cores=2, threads=2)},
    {"cpus": CpuSpec(count=2, max_count=8, sockets=2, cores=2, threads=2)},
    {"memory": MemorySpec(max_bytes=1024 * MIB, target_bytes=100 * MIB)},
    {"memory": MemorySpec(huge_pages=HugePages.SIZE_2M)},
    {"firmware": Firmware.UEFI_SECURE_BOOT, "tpm": True},
    {"firmware": Firmware.BIOS, "tpm": True},
    {"tpm": True, "boot": KERNEL},
    disk(read_only=True),
    disk(cache=DiskCache.WRITETHROUGH, bus=DiskBus.SATA),
    limits(iops=Rate(per_s=10, burst_per_s=20, burst_s=5), read_bytes=Rate(per_s=1)),
    {"watchdog": WatchdogSpec(model=WatchdogModel.ITCO)},
    {"clock": ClockSpec(base=Clock.LOCAL, utc_offset_minutes=60)},
    {"nics": (NicSpec(boot_index=1),), "cdroms": (CdromSpec(boot_index=2),)},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"cpus": CpuSpec(count=256)}, "/cpus/count"),
    ({"cpus": CpuSpec(count=2, max_count=1)}, "/cpus/max_count"),
    ({"cpus": CpuSpec(count=2, max_count=256)}, "/cpus/max_count"),
    ({"cpus": CpuSpec(count=3, sockets=2)}, "/cpus/sockets"),
    ({"cpus": CpuSpec(count=4, sockets=2, cores=2, threads=2)}, "/cpus/sockets"),
    ({"cpus": CpuSpec(count=3, threads=2)}, "/cpus/threads"),
    ({"memory": MemorySpec(max_bytes=256 * MIB)}, "/memory/max_bytes"),
    ({"memory": MemorySpec(max_bytes=513 * MIB)}, "/memory/max_bytes"),
    ({"memory": MemorySpec(huge_pages=HugePages.SIZE_1G)}, "/memory_bytes"),
    ({"memory": MemorySpec(target_bytes=513 * MIB)}, "/memory/target_bytes"),
    ({"memory": MemorySpec(target_bytes=64 * MIB, balloon=False)}, "/memory/target_bytes"),
    ({"firmware": Firmware.UEFI_SECURE_BOOT, "boot": KERNEL}, "/boot/kernel"),
    ({"firmware": Firmware.BIOS, "tpm": True, "boot": KERNEL}, "/tpm"),
    (disk(read_only=True, bus=DiskBus.SATA), "/disks/0/read_only"),
    (disk(cache=DiskCache.WRITETHROUGH, bus=DiskBus.NVME), "/disks/0/cache"),
    (limits(iops=Rate(per_s=1), write_iops=Rate(per_s=1)), "/disks/0/limits/write_iops"),
    (limits(bytes=Rate(per_s=9, burst_per_s=8)), "/disks/0/limits/bytes/burst_per_s"),
    (limits(bytes=Rate(per_s=9, burst_s=8)), "/disks/0/limits/bytes/burst_s"),
    (
        {"disks": (DiskSpec(volume="a", key="disk3"), DiskSpec(volume="b", key="disk3"))},
        "/disks/1/key",
    ),
    (
        {"cdroms": (CdromSpec(boot_index=1),), "nics": (NicSpec(boot_index=1),)},
        "/nics/0/boot_index",
    ),
    (
        {"clock": ClockSpec(base=Clock.UTC, utc_offset_minutes=60)},
        "/clock/utc_offset_minutes",
    ),
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_goes_together(fields: dict[str, Any]) -> None:
    assert hardware_problems(VmSpec(datastore="main", **fields), Family.Q35) == []


@pytest.mark.parametrize(("fields", "pointer"), BAD)
def test_what_does_not(fields: dict[str, Any], pointer: str) -> None:
    (problem,) = hardware_problems(VmSpec(datastore="main", **fields), Family.Q35)
    assert problem.pointer == f"/spec{pointer}"
    assert problem.detail.endswith(".")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"firmware": Firmware.UEFI_SECURE_BOOT}, "/spec/firmware"),
        ({"watchdog": WatchdogSpec(model=WatchdogModel.ITCO)}, "/spec/watchdog/model"),
    ],
)
def test_what_the_old_chipset_lacks(fields: dict[str, Any], pointer: str) -> None:
    spec = VmSpec(datastore="main", guest_os=GuestOs.OTHER, **fields)
    assert [p.pointer for p in hardware_problems(spec, Family.PC)] == [pointer]
