"""Command lines: whole ones as golden data, and what must hold for each device."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vm.sample import cdrom, disk, nic, plan
from vmkernel.devices import (
    Accelerator,
    Arguments,
    DiskLayer,
    FirmwarePlan,
    KernelPlan,
    SerialPlan,
    TapBackend,
)
from vmkernel.devices.arguments import keyval
from vmkernel.model import (
    BootDevice,
    BootSpec,
    CpuSpec,
    DiskBus,
    DiskLimits,
    DisplayModel,
    GuestOs,
    HugePages,
    MemorySpec,
    NicModel,
    Rate,
    VolumeFormat,
    VsockSpec,
    WatchdogAction,
    WatchdogModel,
    WatchdogSpec,
)
from vmkernel.qemu import build_arguments

GOLDEN = Path(__file__).parent / "golden"

PLANS = {
    "smallest": plan(),
    "uefi-virtio-tap": plan(
        firmware=FirmwarePlan(Path("/usr/share/OVMF/CODE.fd"), Path("/ds/vms/web/nvram.fd")),
        disks=(disk(DiskBus.VIRTIO_BLK, "a"), disk(DiskBus.VIRTIO_BLK, "b")),
        cdroms=(cdrom(), cdrom(path=None)),
        nics=(nic(backend=TapBackend(fd=7, vhost_fd=8, name="vmtap0")),),
        kvm_fd=9,
        display=DisplayModel.VIRTIO,
    ),
    "every-bus-q35": plan(
        disks=(
            disk(DiskBus.VIRTIO_BLK, "blk"),
            disk(DiskBus.VIRTIO_SCSI, "scsi"),
            disk(DiskBus.NVME, "nvme"),
            disk(DiskBus.SATA, "sata", format=VolumeFormat.RAW),
            disk(DiskBus.USB, "usb", direct=False),
        ),
        cdroms=(cdrom(DiskBus.SATA), cdrom(DiskBus.VIRTIO_SCSI), cdrom(DiskBus.USB)),
        nics=tuple(nic(model) for model in NicModel),
        display=DisplayModel.STD,
        boot=BootSpec(order=(BootDevice.CDROM, BootDevice.NETWORK, BootDevice.DISK)),
    ),
    "old-pc-tcg": plan(
        machine_type="pc-i440fx-10.0",
        accelerator=Accelerator.TCG,
        disks=(disk(DiskBus.IDE, "ide"), disk(DiskBus.SATA, "sata"), disk(DiskBus.NVME, "n")),
        cdroms=(cdrom(DiskBus.IDE),),
        nics=(nic(NicModel.E1000),),
        display=DisplayModel.STD,
    ),
    "everything-else": plan(
        firmware=FirmwarePlan(Path("/fw/CODE.fd"), Path("/ds/vms/web/n.fd"), secure=True),
        cpus=CpuSpec(count=2, max_count=8, model="EPYC-v4"),
        memory=MemorySpec(max_bytes=1 << 30, huge_pages=HugePages.SIZE_2M),
        disks=(
            disk(
                DiskBus.VIRTIO_BLK,
                "child",
                key="disk9",
                backing=(
                    DiskLayer(Path("/ds/parent.qcow2"), VolumeFormat.QCOW2),
                    DiskLayer(Path("/ds/base.img"), VolumeFormat.RAW),
                ),
                flushes=False,
                write_cache=False,
                discard=False,
                limits=DiskLimits(iops=Rate(per_s=100, burst_per_s=500, burst_s=10)),
                boot_index=5,
            ),
            disk(DiskBus.VIRTIO_SCSI, "ro", key="disk1", read_only=True),
        ),
        nics=(nic(key="nic3", boot_index=2),),
        serial=tuple(SerialPlan(fd=20 + port, scrollback_bytes=0) for port in range(4)),
        agent_fd=None,
        rng=False,
        keyboard=True,
        rtc_base="2026-11-23T11:30:00",
        boot=BootSpec(menu_s=5),
        guest_os=GuestOs.WINDOWS,
        watchdog=WatchdogSpec(model=WatchdogModel.ITCO, action=WatchdogAction.INJECT_NMI),
        vsock=VsockSpec(cid=42),
        vsock_fd=30,
        tpm_fd=31,
    ),
    "kernel": plan(
        kernel=KernelPlan(Path("/ds/k"), Path("/ds/i"), "console=ttyS0 a,b=c"),
    ),
}


@pytest.mark.parametrize("name", sorted(PLANS))
def test_whole_command_line(name: str, update_golden: bool) -> None:
    """Every word; with MICA_UPDATE_GOLDEN=1 they are written, to be read in the diff."""
    text = "\n".join(_lines(build_arguments(PLANS[name]))) + "\n"
    path = GOLDEN / f"{name}.txt"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", sorted(PLANS))
def test_promises(name: str) -> None:
    """What holds for every VM."""
    words = build_arguments(PLANS[name])
    assert {"-nodefaults", "-no-user-config", "-S"} <= set(words)
    sandbox = words[words.index("-sandbox") + 1]
    assert sandbox == ("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
    assert "unix:" not in " ".join(words)
    nodes = _json(words, "-blockdev")
    for node in nodes:
        assert node["driver"] in {"file", "raw", "qcow2", "throttle"}
        if node["driver"] == "qcow2":
            assert node["backing"] is None or node["backing"].startswith("disk")
    used = [d["drive"] for d in _json(words, "-device") if "drive" in d]
    assert len(used) == len(set(used))
    places = [(d["bus"], d["addr"]) for d in _json(words, "-device") if "addr" in d]
    assert len(places) == len(set(places))
    ids = [d["id"] for d in _json(words, "-device")]
    assert len(ids) == len(set(ids))


def test_places_do_not_move() -> None:
    """Removing a disk leaves the network cards where they are."""
    cards = (nic(), nic())
    many = plan(disks=tuple(disk(DiskBus.VIRTIO_BLK, str(i)) for i in range(20)), nics=cards)
    few = plan(nics=cards)

    def places(words: list[str]) -> list[Any]:
        return [d for d in _json(words, "-device") if d["id"].startswith("nic")]

    assert places(build_arguments(many)) == places(build_arguments(few))


def test_boot_order_counts_through_the_classes() -> None:
    words = build_arguments(PLANS["every-bus-q35"])
    order = {d["id"]: d["bootindex"] for d in _json(words, "-device") if "bootindex" in d}
    assert order == {
        **{f"cdrom{i}": 1 + i for i in range(3)},
        **{f"nic{i}": 4 + i for i in range(5)},
        **{f"disk{i}": 9 + i for i in range(5)},
    }


def test_model_host_without_kvm() -> None:
    words = build_arguments(plan(accelerator=Accelerator.TCG))
    assert words[words.index("-cpu") + 1] == "max"


def test_commas_are_doubled() -> None:
    assert keyval("a,b", c="d,e", f=True, g=None, h_i=3) == "a,,b,c=d,,e,f=on,h-i=3"


def test_json_needs_no_quoting() -> None:
    args = Arguments()
    args.blockdev("file", "n", filename='/a,"b"')
    assert json.loads(args.words()[1])["filename"] == '/a,"b"'


def _json(words: list[str], option: str) -> list[dict[str, Any]]:
    pairs = pairwise(words)
    return [json.loads(value) for name, value in pairs if name == option]


def _lines(words: list[str]) -> list[str]:
    """One option a line."""
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines
