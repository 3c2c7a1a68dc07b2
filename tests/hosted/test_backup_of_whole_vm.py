"""A backup holds the VM: spec, disks, firmware variables, TPM state; restored, it is that machine.

A story: each test needs those before it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

import msgspec
import pytest

from remote_api.client.backup.folder import BackupFolder, Point
from remote_api.client.backup.making import add_point
from remote_api.client.backup.restoring import restore_vm
from remote_api.client.errors import ConflictError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.guest import guest_files
from tests.framework.hosted import HostedMica
from tests.framework.talk import Talk
from vmkernel.model import (
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageFormat,
    NicSpec,
    Vm,
    VmSpec,
    VolumeSpec,
)
from vmkernel.vm.nonvolatile.tpm_state import decode

pytestmark = pytest.mark.story

MIB = 1 << 20


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> BackupFolder:
    """The folder of backups that the tests share."""
    return BackupFolder(tmp_path_factory.mktemp("backups") / "whole")


@pytest.fixture(scope="module", autouse=True)
def whole(host: HostedMica) -> Iterator[None]:
    """A UEFI guest with a TPM, running."""
    disk = guest_files().uefi_disk
    with host.client() as mica:
        mica.upload_image("whole-disk", disk, datastore="main", image_format=ImageFormat.RAW)
        size = -(-disk.stat().st_size // MIB) * MIB
        volume = VolumeSpec(datastore="main", size_bytes=size, source_image="whole-disk")
        mica.wait(mica.create_volume("whole-root", volume))
        mica.create_vm(
            "whole",
            VmSpec(
                datastore="main",
                name="A whole VM",
                labels={"env": "prod"},
                memory_bytes=192 * MIB,
                firmware=Firmware.UEFI,
                tpm=True,
                display=DisplayModel.NONE,
                disks=(DiskSpec(volume="whole-root"),),
                nics=(NicSpec(),),
            ),
        )
        mica.wait(mica.start_vm("whole"))
        with Talk(mica, "whole") as guest:
            guest.until("MICA GUEST UP", 150)
        yield
        for vm in mica.vms():
            if vm.id.startswith("whole"):
                if vm.status.state == "running":
                    mica.wait(mica.power_off_vm(vm.id))
                mica.delete_vm(vm.id, with_volumes=True)
        mica.delete_image("whole-disk")


def _state_files(host: HostedMica, vm: str) -> dict[str, str]:
    folder = host.folder / "datastores/main/vms" / vm
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "vm.json")
    kept = {p.name: p.read_bytes() for p in files if p.name.startswith("nvram")}
    kept |= {p.name: decode(p.read_bytes())["permall"] for p in files if p.name == "tpm.state"}
    return {name: hashlib.sha256(data).hexdigest() for name, data in kept.items()}


def _volumes(mica: Mica) -> set[str]:
    return {volume.id for volume in mica.volumes()}


def test_a_running_vm_is_backed_up_whole(host: HostedMica, mica: Mica, chain: BackupFolder) -> None:
    number, point = add_point(chain, mica, "whole")
    assert (number, point.since, point.vm) == (1, None, "whole")
    saved = json.loads(chain.saved_vm(point))
    vm = mica.vm("whole")
    assert saved["machine"]["uuid"] == vm.status.uuid
    assert saved["machine"]["machine_type"] == vm.status.machine_type
    assert saved["spec"] == json.loads(msgspec.json.encode(vm.spec))
    files = {
        file["name"]: hashlib.sha256(base64.b64decode(file["data"])).hexdigest()
        for file in saved["machine"]["files"]
    }
    on_host = list(_state_files(host, "whole").values())
    assert set(files) == {"nvram", "tpm"}
    assert sorted(files.values()) == sorted(on_host)
    assert vm.status.state == "running"


def test_a_viewer_does_not_get_it(host: HostedMica, mica: Mica) -> None:
    from vmkernel.model import Role, TokenSpec

    backup = mica.begin_backup("whole")
    issued = mica.create_token("whole-viewer", TokenSpec(role=Role.VIEWER))
    try:
        with host.client(issued.secret) as viewer, pytest.raises(RefusedError) as refused:
            viewer.backup_vm(backup)
        assert refused.value.code == "forbidden"
    finally:
        mica.end_backup(backup)
        mica.delete_token("whole-viewer")


def test_points_are_added_while_it_is_off(mica: Mica, chain: BackupFolder) -> None:
    mica.wait(mica.power_off_vm("whole"))
    mica.patch_vm("whole", {"description": "changed since"})
    number, point = add_point(chain, mica, "whole")
    assert number == 2
    assert point.since == chain.points()[1].checkpoint
    assert json.loads(chain.saved_vm(point))["spec"]["description"] == "changed since"


def test_the_same_machine_is_not_made_twice(mica: Mica, chain: BackupFolder) -> None:
    before = _volumes(mica)
    with pytest.raises(ConflictError, match="already"):
        restore_vm(chain, mica, "whole")
    with pytest.raises(ConflictError, match=r"VM whole has the UUID of the backup.*--new-identity"):
        restore_vm(chain, mica, "whole-2")
    document = json.loads(chain.saved_vm(chain.points()[2]))
    with pytest.raises(RefusedError) as refused:  # by the host, too
        mica.create_saved_vm(
            "whole-2", document | {"spec": document["spec"] | {"disks": [], "nics": []}}
        )
    assert [e.pointer for e in refused.value.problem.errors] == ["/machine/uuid"]
    assert _volumes(mica) == before


def test_a_copy_beside_the_original(host: HostedMica, mica: Mica, chain: BackupFolder) -> None:
    vm = restore_vm(chain, mica, "whole-2", point=1, new_identity=True)
    original = mica.vm("whole")
    assert vm.status.state == "stopped"
    assert vm.status.uuid != original.status.uuid
    assert vm.spec.nics[0].mac != original.spec.nics[0].mac
    assert (vm.spec.name, vm.spec.labels, vm.spec.description) == (
        "A whole VM",
        {"env": "prod"},
        "",
    )
    assert [disk.volume for disk in vm.spec.disks] == ["whole-2-disk0"]
    assert _state_files(host, "whole-2") == _state_files(host, "whole")
    mica.delete_vm("whole-2", with_volumes=True)


def _replaced(chain: BackupFolder, number: int, document: bytes) -> Point:
    """A point whose VM is another."""
    point = chain.points()[number]
    new = msgspec.structs.replace(point, saved=chain.keep_vm(number, document))
    chain.keep(number, new)
    return point


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda d: d["machine"]["files"][0].update(data="AAAA"), "/machine/files/0/data"),
        (lambda d: d["machine"].update(machine_type="pc-q35-1; rm"), "/machine/machine_type"),
        (lambda d: d["spec"].update(memory_bytes=1), "/spec/memory_bytes"),
        (lambda d: d["spec"].update(nics=[{"port_group": "nowhere"}]), "/spec/nics/0/port_group"),
    ],
)
def test_a_restore_that_fails_leaves_nothing(
    host: HostedMica, mica: Mica, chain: BackupFolder, change: object, pointer: str
) -> None:
    before = _volumes(mica)
    kept = chain.saved_vm(chain.points()[2])
    document = json.loads(kept)
    change(document)  # type: ignore[operator]
    _replaced(chain, 2, json.dumps(document).encode())
    try:
        with pytest.raises(RefusedError) as refused:
            restore_vm(chain, mica, "whole-3", new_identity=True)
        assert pointer in [e.pointer for e in refused.value.problem.errors]
    finally:
        _replaced(chain, 2, kept)
    assert _volumes(mica) == before
    assert not (host.folder / "datastores/main/vms/whole-3").exists()


def test_machine_state_is_for_new_vms_only(mica: Mica, chain: BackupFolder) -> None:
    document = json.loads(chain.saved_vm(chain.points()[2]))
    vm: Vm = mica.vm("whole")
    for method, headers in (
        ("PUT", {"if-match": f'"{vm.revision}"'}),
        ("PATCH", {"content-type": "application/merge-patch+json"}),
    ):
        with pytest.raises(RefusedError) as refused:
            mica.transport.send(method, "/v1/vms/whole", body=document, headers=headers)
        assert [e.pointer for e in refused.value.problem.errors] == ["/machine"]
    assert mica.vm("whole") == vm


def test_the_last_point_alone_brings_the_machine_back(
    host: HostedMica, mica: Mica, chain: BackupFolder
) -> None:
    assert chain.prune(1) == [1]
    original = mica.vm("whole")
    state = _state_files(host, "whole")
    mica.delete_vm("whole", with_volumes=True)
    vm = restore_vm(chain, mica, "whole")
    assert vm.status.uuid == original.status.uuid
    assert vm.status.machine_type == original.status.machine_type
    disks = tuple(msgspec.structs.replace(d, volume=f"whole-{d.key}") for d in original.spec.disks)
    assert vm.spec == msgspec.structs.replace(original.spec, disks=disks)
    assert _state_files(host, "whole") == state
    mica.wait(mica.start_vm("whole"))
    with Talk(mica, "whole") as guest:
        guest.until("MICA GUEST UP", 150)
    mica.wait(mica.power_off_vm("whole"))
