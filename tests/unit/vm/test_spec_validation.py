"""Specs beyond their types: limits, references, addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import ValidationError, convert

from tests.unit.vm.folder_storage import FolderStorage
from vmkernel.devices import Family
from vmkernel.model import (
    BootDevice,
    BootSpec,
    CdromSpec,
    CpuSpec,
    DiskBus,
    DiskSpec,
    ErrorCode,
    ImageFormat,
    KernelBoot,
    MicaError,
    NicSpec,
    VmSpec,
    VsockSpec,
)
from vmkernel.vm.spec.macs import mac_problem
from vmkernel.vm.spec.validation import check_references, check_structure, completed, family_of


def spec(**fields: Any) -> VmSpec:
    return VmSpec(datastore="main", **fields)


def disks(bus: DiskBus, count: int) -> tuple[DiskSpec, ...]:
    return tuple(DiskSpec(volume=f"v{i}", bus=bus) for i in range(count))


def test_ide_asks_for_the_old_chipset() -> None:
    assert family_of(spec()) is Family.Q35
    assert family_of(spec(disks=disks(DiskBus.IDE, 1))) is Family.PC
    assert family_of(spec(cdroms=(CdromSpec(bus=DiskBus.IDE),))) is Family.PC


@pytest.mark.parametrize(
    ("fields", "family", "pointers"),
    [
        ({"disks": disks(DiskBus.SATA, 6)}, Family.Q35, []),
        (
            {"disks": disks(DiskBus.SATA, 6), "cdroms": (CdromSpec(),)},
            Family.Q35,
            ["/spec/cdroms/0/bus"],
        ),
        ({"disks": disks(DiskBus.IDE, 5)}, Family.PC, ["/spec/disks/4/bus"]),
        ({"disks": disks(DiskBus.IDE, 1)}, Family.Q35, ["/spec/disks/0/bus"]),
        ({"cdroms": (CdromSpec(bus=DiskBus.NVME),)}, Family.Q35, ["/spec/cdroms/0/bus"]),
        ({"disks": disks(DiskBus.VIRTIO_BLK, 9)}, Family.PC, ["/spec/disks/8/bus"]),
        ({"disks": disks(DiskBus.VIRTIO_BLK, 64)}, Family.Q35, []),
        ({"cpus": CpuSpec(count=256)}, Family.Q35, ["/spec/cpus/count"]),
        (
            {"disks": (DiskSpec(volume="a"), DiskSpec(volume="a"))},
            Family.Q35,
            ["/spec/disks/1/volume"],
        ),
        (
            {"boot": BootSpec(order=(BootDevice.DISK, BootDevice.DISK))},
            Family.Q35,
            ["/spec/boot/order/1"],
        ),
        (
            {"nics": (NicSpec(mac="52:54:00:00:00:01"), NicSpec(mac="52:54:00:00:00:01"))},
            Family.Q35,
            ["/spec/nics/1/mac"],
        ),
    ],
)
def test_limits(fields: dict[str, Any], family: Family, pointers: list[str]) -> None:
    if not pointers:
        check_structure(spec(**fields), family)
        return
    with pytest.raises(MicaError) as caught:
        check_structure(spec(**fields), family)
    assert [f.pointer for f in caught.value.problem.fields] == pointers


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    made = FolderStorage(tmp_path)
    made.add_volume("mine")
    made.add_volume("theirs")
    made.add_image("iso", ImageFormat.ISO)
    made.add_image("kernel", ImageFormat.LINUX_KERNEL)
    made.add_image("initrd", ImageFormat.LINUX_INITRD)
    return made


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"datastore": "gone"}, "/spec/datastore", ErrorCode.INVALID),
        ({"disks": (DiskSpec(volume="none"),)}, "/spec/disks/0/volume", ErrorCode.INVALID),
        ({"disks": (DiskSpec(volume="theirs"),)}, "/spec/disks/0/volume", ErrorCode.IN_USE),
        ({"cdroms": (CdromSpec(image="kernel"),)}, "/spec/cdroms/0/image", ErrorCode.INVALID),
        (
            {"boot": BootSpec(kernel=KernelBoot(kernel="iso"))},
            "/spec/boot/kernel/kernel",
            ErrorCode.INVALID,
        ),
        (
            {"boot": BootSpec(kernel=KernelBoot(kernel="kernel", initrd="none"))},
            "/spec/boot/kernel/initrd",
            ErrorCode.INVALID,
        ),
        ({"nics": (NicSpec(port_group="dmz"),)}, "/spec/nics/0/port_group", ErrorCode.INVALID),
    ],
)
def test_references(
    storage: FolderStorage, fields: dict[str, Any], pointer: str, code: ErrorCode
) -> None:
    with pytest.raises(MicaError) as caught:
        check(storage, VmSpec(**{"datastore": "main", **fields}))
    problem = caught.value.problem
    assert problem.code is code
    assert [f.pointer for f in problem.fields] == [pointer]


def test_good_references(storage: FolderStorage) -> None:
    check(
        storage,
        spec(
            disks=(DiskSpec(volume="mine"),),
            cdroms=(CdromSpec(image="iso"), CdromSpec()),
            nics=(NicSpec(),),
            boot=BootSpec(kernel=KernelBoot(kernel="kernel", initrd="initrd")),
        ),
    )


def test_a_datastore_that_is_away_is_unavailable(storage: FolderStorage) -> None:
    storage.change("main", available=False)
    with pytest.raises(MicaError) as caught:
        check(storage, spec())
    assert caught.value.problem.code is ErrorCode.UNAVAILABLE


def test_macs_are_drawn_once() -> None:
    first = completed(spec(nics=(NicSpec(), NicSpec())), macs=(), cids=())
    macs = [nic.mac for nic in first.nics]
    assert len(set(macs)) == 2
    assert all(mac is not None and mac.startswith("52:54:00:") for mac in macs)
    again = completed(spec(nics=(NicSpec(), NicSpec())), macs=(), cids=(), previous=first)
    assert again == first


@pytest.mark.parametrize(
    "written", ["52:54:00:AB:CD:EF", "52-54-00-ab-cd-ef", "5254.00AB.cdef", "525400abCDEF"]
)
def test_a_mac_in_any_usual_form_is_stored_in_one(written: str) -> None:
    known = convert({"mac": written}, NicSpec)
    done = completed(spec(nics=(known,)), macs=(), cids=())
    assert done.nics[0].mac == "52:54:00:ab:cd:ef"
    with pytest.raises(MicaError, match="belongs to another VM"):
        completed(spec(nics=(known,)), macs=("52:54:00:ab:cd:ef",), cids=())
    twice = spec(nics=(known, NicSpec(mac="52:54:00:ab:cd:ef")))
    with pytest.raises(MicaError, match="named twice"):
        check_structure(completed(twice, macs=(), cids=()), Family.Q35)


@pytest.mark.parametrize(
    "written",
    [
        "52:54:00:12:34",
        "52:54:00:12:34:5g",
        "52:54-00:12:34:56",
        "5254:0012:3456",
        "52:54:00:12:34:56\n",
        " 52:54:00:12:34:56",
        "",
    ],
)
def test_what_is_no_mac_is_none(written: str) -> None:
    with pytest.raises(ValidationError):
        convert({"mac": written}, NicSpec)


@pytest.mark.parametrize(
    ("mac", "why"),
    [
        ("00:00:00:00:00:00", "zeros"),
        ("ff:ff:ff:ff:ff:ff", "multicast"),
        ("01:80:c2:00:00:00", "multicast"),
        ("01:80:C2:00:00:0E", "multicast"),
        ("01:00:5e:00:00:fb", "multicast"),
        ("33:33:00:00:00:01", "multicast"),
        ("53:54:00:12:34:56", "second digit"),
        ("00:00:5e:00:01:07", "IANA"),
        ("00:00:5e:00:02:07", "IANA"),
        ("00-00-0C-07-AC-01", "HSRP"),
        ("00:00:0c:9f:f1:01", "HSRP"),
        ("00:05:73:a0:00:01", "HSRP"),
        ("00:07:b4:00:01:01", "GLBP"),
        ("fe:54:00:12:34:56", "host's side"),
        ("02:00:00:00:00:10", "this host's own"),
    ],
)
def test_reserved_macs_are_refused_by_the_field(mac: str, why: str) -> None:
    wanted = spec(nics=(NicSpec(), NicSpec(mac=mac)))
    with pytest.raises(MicaError, match=why) as caught:
        completed(wanted, macs=(), cids=(), host_macs={"02:00:00:00:00:10"})
    assert [f.pointer for f in caught.value.problem.fields] == ["/spec/nics/1/mac"]


def test_a_card_keeps_an_address_that_is_reserved_by_now() -> None:
    had = spec(nics=(NicSpec(key="nic0", mac="fe:54:00:12:34:56"),))
    assert completed(had, macs=(), cids=(), previous=had).nics[0].mac == "fe:54:00:12:34:56"


def test_drawn_macs_are_never_reserved() -> None:
    drawn = completed(spec(nics=(NicSpec(),) * 16), macs=(), cids=())
    assert [mac_problem(nic.mac or "") for nic in drawn.nics] == [None] * 16


def test_a_mac_belongs_to_one_vm() -> None:
    with pytest.raises(MicaError) as caught:
        completed(
            spec(nics=(NicSpec(mac="52:54:00:00:00:01"),)), macs=("52:54:00:00:00:01",), cids=()
        )
    assert caught.value.problem.code is ErrorCode.IN_USE


def test_vsock_cids_are_drawn_and_unique() -> None:
    first = completed(spec(vsock=VsockSpec()), macs=(), cids=(3, 4))
    assert first.vsock == VsockSpec(cid=5)
    assert completed(spec(vsock=VsockSpec()), macs=(), cids=(), previous=first) == first
    with pytest.raises(MicaError) as caught:
        completed(spec(vsock=VsockSpec(cid=4)), macs=(), cids=(3, 4))
    assert caught.value.problem.fields[0].pointer == "/spec/vsock/cid"


def check(storage: FolderStorage, wanted: VmSpec) -> None:
    check_references(
        "web",
        wanted,
        storage=storage,
        vm_of_volume=lambda volume: "other" if volume == "theirs" else None,
        port_groups=("vm-network",),
    )
