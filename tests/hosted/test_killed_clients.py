"""Clients that are killed between the volumes of a VM and the VM: what they made goes by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_api.client.backup.folder import BackupFolder
from remote_api.client.backup.making import add_point
from remote_api.client.backup.restoring import restore_volumes
from remote_api.client.errors import ClientError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.client.sdk.base import CREATE, MERGE_PATCH
from tests.framework.hosted import HostedMica
from tests.framework.repository import REPOSITORY
from vmkernel.model import DiskSpec, DisplayModel, Firmware, VmSpec, VolumeFormat, VolumeSpec

MIB = 1 << 20
_KILLED = """
import os, signal, sys
from remote_api.client.sdk import Mica
good, times = Mica.{call}, [{times}]
def killed(*words, **named):
    times[0] -= 1
    if not times[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return good(*words, **named)
Mica.{call} = killed
from remote_api.client.__main__ import main
main()
"""
"""The command itself, which is killed as it sends one request."""


@pytest.fixture(autouse=True)
def _tidy(mica: Mica) -> Iterator[None]:
    yield
    for vm in list(mica.vms()):
        mica.delete_vm(vm.id, with_volumes=True)
    for volume in list(mica.volumes()):
        mica.delete_volume(volume.id)


@pytest.fixture
def environment(host: HostedMica, tmp_path: Path) -> dict[str, str]:
    """That of a shell in which the command knows the host."""
    return {
        **os.environ,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "MICA_HOST": host.address.removeprefix("https://"),
        "MICA_TOKEN": host.token or "",
        "MICA_FINGERPRINT": host.fingerprint,
    }


def _killed_at(
    environment: dict[str, str], call: str, *words: str, times: int = 1, survives: bool = False
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED.format(call=call, times=times), *words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == (0 if survives else -signal.SIGKILL), (done.stdout, done.stderr)


def _write(mica: Mica, volume: str) -> None:
    """Put data on a qcow2 volume, so that its backup and its restore write some."""
    raw, qcow2 = VolumeFormat.RAW, VolumeFormat.QCOW2
    mica.wait(mica.move_volume(volume, volume_format=raw))
    mica.write_volume(volume, 0, 512, [b"x" * 512])
    mica.wait(mica.move_volume(volume, volume_format=qcow2))


def _vm(mica: Mica, vm_id: str, *volumes: str) -> None:
    spec = VmSpec(
        datastore="main",
        memory_bytes=64 * MIB,
        firmware=Firmware.BIOS,
        display=DisplayModel.NONE,
        disks=tuple(DiskSpec(volume=volume) for volume in volumes),
    )
    mica.create_vm(vm_id, spec)


def _until(condition: Callable[[], bool], host: HostedMica, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while True:
        try:
            if condition():
                return
        except ClientError:
            pass  # the host is starting again
        assert time.monotonic() < end, host.logs()
        time.sleep(0.1)


def _goes_by_itself(mica: Mica, *volumes: str) -> None:
    for volume in volumes:
        found = mica.volume(volume)
        assert found.spec.delete_unless_used_s is not None
        assert found.status.expires_at is not None


def test_a_client_killed_before_its_vm(mica: Mica, environment: dict[str, str]) -> None:
    sizes = ("--new-disk", "1M", "--new-disk", "1M")
    words = ("vm", "create", "web", "--datastore", "main", "--memory", "64M", *sizes)
    _killed_at(environment, "create_vm", *words)
    volumes = [volume.id for volume in mica.volumes()]
    assert len(volumes) == 2
    _goes_by_itself(mica, *volumes)


def test_a_client_killed_before_it_attaches(mica: Mica, environment: dict[str, str]) -> None:
    _vm(mica, "web")
    _killed_at(environment, "patch_vm", "vm", "attach", "web", "more", "--new", "1M")
    assert mica.vm("web").spec.disks == ()
    _goes_by_itself(mica, "more")


@pytest.mark.parametrize("call", ["write_volume", "move_volume", "create_saved_vm"])
def test_a_client_killed_in_a_restore(
    mica: Mica, environment: dict[str, str], tmp_path: Path, call: str
) -> None:
    mica.wait(mica.create_volume("root", VolumeSpec(datastore="main", size_bytes=2 * MIB)))
    raw = VolumeSpec(datastore="main", size_bytes=2 * MIB, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("data", raw))
    mica.write_volume("data", 0, 512, [b"x" * 512])
    _vm(mica, "web", "root", "data")
    folder = tmp_path / "backup"
    add_point(BackupFolder(folder), mica, "web")
    before = {volume.id for volume in mica.volumes()}
    words = ("backup", "restore", str(folder), "--as", "other", "--new-identity")
    _killed_at(environment, call, *words)
    left = {volume.id for volume in mica.volumes()} - before
    assert left
    _goes_by_itself(mica, *left)
    assert [vm.id for vm in mica.vms()] == ["web"]


@pytest.mark.parametrize(
    "call", ["create_volume", "write_volume", "move_volume", "keep_volume", "wait"]
)
@pytest.mark.parametrize("times", [1, 2])
def test_restored_volumes_stay_all_or_none(
    mica: Mica, environment: dict[str, str], tmp_path: Path, call: str, times: int
) -> None:
    """The client is killed as it sends each kind of request for the first or the second disk."""
    for volume in ("root", "data"):
        mica.wait(mica.create_volume(volume, VolumeSpec(datastore="main", size_bytes=2 * MIB)))
    _write(mica, "root")
    _write(mica, "data")
    _vm(mica, "web", "root", "data")
    folder = BackupFolder(tmp_path / "backup")
    add_point(folder, mica, "web")
    words = ("backup", "restore", str(folder.path), "--datastore", "main", "--prefix")
    whole = call == "keep_volume" and times == 2  # all go by one request
    _killed_at(environment, call, *words, "half", times=times, survives=whole)
    half = [volume for volume in mica.volumes() if volume.id.startswith("half-")]
    kept = {volume.spec.delete_unless_used_s is None for volume in half}
    assert kept == ({True} if whole else {False} if half else set())
    restored = restore_volumes(folder, mica, datastore="main", prefix="whole")
    assert restored == ["whole-disk0", "whole-disk1"]
    for volume_id in restored:
        assert mica.volume(volume_id).spec.delete_unless_used_s is None


def test_what_nothing_uses_goes_also_over_a_restart(host: HostedMica, mica: Mica) -> None:
    def make(volume: str, seconds: int) -> None:
        spec = VolumeSpec(datastore="main", size_bytes=MIB, delete_unless_used_s=seconds)
        mica.wait(mica.create_volume(volume, spec))

    for volume in ("used", "kept", "unused", "attached"):
        make(volume, 8)
    _vm(mica, "web", "used")
    _vm(mica, "late")
    mica.patch_vm("late", {"disks": [{"volume": "attached"}]})
    mica.patch_vm("late", {"disks": []})
    mica.wait(mica.keep_volume("kept"))
    stay = ("used", "kept", "attached")
    assert {mica.volume(volume).spec.delete_unless_used_s for volume in stay} == {None}
    os.kill(host.pid("vmkernel"), signal.SIGKILL)
    _until(lambda: mica.volume("unused").status.expires_at is not None, host)
    _until(lambda: {volume.id for volume in mica.volumes()} == set(stay), host)
    volumes = host.folder / "datastores/main/volumes"
    assert {path.stem for path in volumes.iterdir()} == set(stay)
    time.sleep(2)
    assert {volume.id for volume in mica.volumes()} == set(stay)


def test_what_is_asked_of_the_time(mica: Mica) -> None:
    spec = VolumeSpec(datastore="main", size_bytes=MIB)
    mica.wait(mica.create_volume("v", spec))
    with pytest.raises(RefusedError, match="fixed at creation"):
        mica.transport.send(
            "PATCH",
            "/v1/volumes/v",
            body={"spec": {"delete_unless_used_s": 60}},
            headers=MERGE_PATCH,
        )
    for seconds in (0, 604_801):
        with pytest.raises(RefusedError) as refused:
            mica.transport.send(
                "PUT",
                "/v1/volumes/w",
                body={
                    "spec": {
                        "datastore": "main",
                        "size_bytes": MIB,
                        "delete_unless_used_s": seconds,
                    }
                },
                headers=CREATE,
            )
        assert refused.value.code == "invalid"
