"""VMs get Microsoft's Secure Boot certificates of 2023; virt-firmware reads the outcome."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from virt.firmware.efi.efivar import EfiVarList
from virt.firmware.varstore.edk2 import Edk2VarStore

from firmware.guest_firmware.secure_boot_keys import MICROSOFT_2023
from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework import inputs
from tests.framework.hosted import HostedMica, hosted_mica
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DisplayModel,
    Firmware,
    SecureBootStatus,
    VmSpec,
)

MIB = 1 << 20
NAMES = {key.name for key in MICROSOFT_2023}
OLD = {"KEK CA 2011", "Windows Production PCA 2011", "UEFI CA 2011"}
VARIABLES = "nvram-secure-boot.fd"
CODE = "secure-boot-keys-outdated"
LOOK_S = 60.0


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedMica]:
    share = inputs.tools() / "usr/share"
    with hosted_mica(tmp_path_factory.mktemp("k"), "--qemu-dir", str(share)) as host:
        with host.client() as mica:
            spec = DatastoreSpec(
                kind=DatastoreKind.DIRECTORY, path=str(host.datastore_folder("main"))
            )
            mica.wait(mica.create_datastore("main", spec))
        yield host


@pytest.fixture
def mica(host: HostedMica) -> Iterator[Mica]:
    with host.client() as mica:
        yield mica


def template() -> Path:
    """What distributions ship."""
    return inputs.tools() / "usr/share/OVMF/OVMF_VARS_4M.ms.fd"


def read(path: Path) -> EfiVarList:
    """As another reader has it."""
    variables: EfiVarList = Edk2VarStore(str(path)).get_varlist()
    return variables


def subjects(path: Path) -> str:
    """The names of all certificates that may change keys, or start something."""
    variables = read(path)
    lists = [siglist for name in ("KEK", "db") for siglist in variables[name].sigdb]
    return "\n".join(siglist.x509.subject.rfc4514_string() for siglist in lists if siglist.x509)


def make(mica: Mica, vm: str, firmware: Firmware = Firmware.UEFI_SECURE_BOOT) -> None:
    spec = VmSpec(
        datastore="main", memory_bytes=128 * MIB, firmware=firmware, display=DisplayModel.NONE
    )
    mica.create_vm(vm, spec)


def old_vm(host: HostedMica, mica: Mica, vm: str, variables: bytes | None = None) -> Path:
    """One whose variables are as an earlier Mica, or a guest, has left them."""
    make(mica, vm)
    path = host.folder / "datastores/main/vms" / vm / VARIABLES
    path.write_bytes(template().read_bytes() if variables is None else variables)
    # What changes behind its back is looked at after the next end of its guest.
    mica.wait(mica.start_vm(vm))
    mica.wait(mica.power_off_vm(vm))
    return path


def looked_at(mica: Mica, vm: str) -> SecureBootStatus:
    deadline = time.monotonic() + LOOK_S
    while True:
        status = mica.vm(vm).status.secure_boot
        if status is not None:
            return status
        assert time.monotonic() < deadline, "nobody has looked at its keys"
        time.sleep(0.2)


def findings(mica: Mica) -> set[str | None]:
    return {f.subject for f in mica.host().status.findings if f.code == CODE}


def test_a_vm_that_is_behind_catches_up(host: HostedMica, mica: Mica) -> None:
    path = old_vm(host, mica, "old")
    status = looked_at(mica, "old")
    assert set(status.missing) == NAMES
    assert status.revoked == 1
    assert "old" in findings(mica)
    before = read(path)
    mica.wait(mica.update_vm_secure_boot("old"))
    assert mica.vm("old").status.secure_boot == SecureBootStatus(missing=(), revoked=1)
    assert "old" not in findings(mica)
    after = read(path)
    assert list(after) == list(before)
    for name, variable in before.items():
        changed = after[name]
        assert (changed.attr, changed.guid) == (variable.attr, variable.guid)
        assert changed.data == variable.data or name in ("KEK", "db")
        assert changed.data.startswith(variable.data)
    assert all(name in subjects(path) for name in NAMES | OLD)
    made = path.read_bytes()
    mica.wait(mica.update_vm_secure_boot("old"))  # again: nothing to do
    assert path.read_bytes() == made
    assert path.stat().st_mode & 0o777 == 0o600
    mica.wait(mica.start_vm("old"))  # its firmware takes it
    mica.wait(mica.power_off_vm("old"))


def test_a_new_vm_begins_with_all(host: HostedMica, mica: Mica) -> None:
    make(mica, "new")
    assert mica.vm("new").status.secure_boot is None
    mica.wait(mica.start_vm("new"))
    mica.wait(mica.power_off_vm("new"))
    assert looked_at(mica, "new").missing == ()
    path = host.folder / "datastores/main/vms/new" / VARIABLES
    assert all(name in subjects(path) for name in NAMES | OLD)
    assert "new" not in findings(mica)


def test_what_a_guest_has_broken_is_told_and_left(host: HostedMica, mica: Mica) -> None:
    broken = bytes(528 << 10)
    path = old_vm(host, mica, "broken", broken)
    status = looked_at(mica, "broken")
    assert status.error is not None
    assert "holds no volume of variables" in status.error
    before = path.read_bytes()
    with pytest.raises(OperationFailedError, match="can't be used"):
        mica.wait(mica.update_vm_secure_boot("broken"))
    assert path.read_bytes() == before


def test_a_link_is_not_followed(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    make(mica, "linked")
    secret = tmp_path / "secret"
    shutil.copyfile(template(), secret)
    path = host.folder / "datastores/main/vms/linked" / VARIABLES
    path.symlink_to(secret)
    with pytest.raises(OperationFailedError):
        mica.wait(mica.update_vm_secure_boot("linked"))
    assert path.is_symlink()
    assert secret.read_bytes() == template().read_bytes()


def test_when_there_is_nothing_to_update(mica: Mica) -> None:
    make(mica, "plain", Firmware.UEFI)
    with pytest.raises(OperationFailedError, match="has no Secure Boot"):
        mica.wait(mica.update_vm_secure_boot("plain"))
    make(mica, "unmade")
    with pytest.raises(OperationFailedError, match="its first start makes them"):
        mica.wait(mica.update_vm_secure_boot("unmade"))
    mica.wait(mica.start_vm("unmade"))
    with pytest.raises(RefusedError, match="only while it is crashed or stopped; stop it first"):
        mica.update_vm_secure_boot("unmade")
    mica.wait(mica.power_off_vm("unmade"))
