"""Datastores over the API and the command: renamed, unmounted, taken over, told of when full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica, hosted_mica
from tests.framework.repository import REPOSITORY
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DatastoreState,
    SpaceLevel,
    VmSpec,
    VmState,
    VolumeSpec,
)

MIB = 1 << 20
Run = Callable[..., str]


@pytest.fixture
def run(host: HostedMica) -> Run:
    """The `mica` command on the host."""
    environment = {
        **os.environ,
        "MICA_HOST": host.address,
        "MICA_TOKEN": host.token or "",
        "MICA_FINGERPRINT": host.fingerprint,
    }

    def run(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "remote_api.client", *words],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture
def pair(tmp_path: Path, mica: Mica) -> Iterator[Path]:
    """Two datastores in a folder, `one` with a VM and a volume; both are forgotten again."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(tmp_path / name))
        mica.wait(mica.create_datastore(name, spec))
    mica.wait(mica.create_volume("moving", VolumeSpec(datastore="one", size_bytes=8 * MIB)))
    mica.create_vm("mover", VmSpec(datastore="one", memory_bytes=64 * MIB))
    yield tmp_path
    for datastore in list(mica.datastores()):
        if datastore.id != "main":
            mica.wait(mica.delete_datastore(datastore.id))


def _places(mica: Mica) -> dict[str, str]:
    """The datastore of each VM of these tests that can be used."""
    return {
        vm.id: vm.spec.datastore
        for vm in mica.vms()
        if vm.id == "mover" and vm.status.state is VmState.STOPPED
    }


def _eventually(probe: Callable[[], bool]) -> None:
    """VMs are read in the background, after the datastore is there."""
    end = time.monotonic() + 20
    while not probe():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


def _findings(mica: Mica) -> set[tuple[str, str | None]]:
    return {(finding.code, finding.subject) for finding in mica.host().status.findings}


@pytest.mark.usefixtures("pair")
def test_what_lies_in_a_datastore_follows_its_name(mica: Mica, run: Run) -> None:
    assert "renamed to fast" in run("datastore", "rename", "one", "fast")
    assert mica.volume("moving").spec.datastore == "fast"
    _eventually(lambda: _places(mica) == {"mover": "fast"})
    assert "unmounted" in run("datastore", "unmount", "fast")
    assert mica.datastore("fast").status.state is DatastoreState.UNMOUNTED
    with pytest.raises(RefusedError) as refused:
        mica.create_volume("new", VolumeSpec(datastore="fast", size_bytes=8 * MIB))
    assert refused.value.code == "conflict"
    assert [volume.id for volume in mica.volumes(datastore="fast")] == []
    assert "mounted" in run("datastore", "mount", "fast")
    _eventually(lambda: _places(mica) == {"mover": "fast"})
    shown = json.loads(run("-o", "json", "datastore", "show", "fast"))
    assert shown["status"]["provisioned_bytes"] == 8 * MIB
    assert "is not there" not in run("datastore", "list")
    assert "already" in run("datastore", "rename", "fast", "two", status=1)
    assert "doesn't grow" in run("datastore", "grow", "fast", status=1)


def test_a_datastore_of_another_mica_is_taken_over_and_clashes_are_told(
    pair: Path, mica: Mica, run: Run
) -> None:
    place = pair / "one"
    run("datastore", "delete", "one", "--yes")
    _eventually(lambda: _places(mica) == {})
    mica.wait(mica.create_volume("moving", VolumeSpec(datastore="two", size_bytes=16 * MIB)))
    mica.create_vm("mover", VmSpec(datastore="two", memory_bytes=128 * MIB))
    empty = pair / "empty"
    empty.mkdir()
    assert "no datastore" in run("datastore", "adopt", "x", "--path", str(empty), status=1)
    before = {path: path.read_bytes() for path in place.rglob("*.json")}
    assert "is ready" in run("datastore", "adopt", "again", "--path", str(place))
    clashes = {("volume-id-taken", "datastore/again"), ("vm-id-clash", "mover")}
    _eventually(lambda: _findings(mica) >= clashes)
    assert mica.volume("moving").spec.size_bytes == 16 * MIB
    assert mica.vm("mover").spec.memory_bytes == 128 * MIB
    assert {path: path.read_bytes() for path in place.rglob("*.json")} == before
    assert "already" in run("datastore", "adopt", "twin", "--path", str(place), status=1)


def test_two_micas_never_have_one_datastore(
    pair: Path, mica: Mica, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(pair / "one"))
    with (
        hosted_mica(tmp_path_factory.mktemp("second")) as host,
        host.client() as second,
    ):
        started = time.monotonic()
        with pytest.raises(OperationFailedError, match="is using it: unmount it there") as failed:
            second.wait(second.create_datastore("theirs", spec, adopt=True))
        assert failed.value.operation.error is not None
        assert failed.value.operation.error.code == "in-use"
        assert time.monotonic() - started < 25
        second.wait(second.create_datastore("theirs", spec, adopt=True, take_over=True))
        _eventually(lambda: ("datastore-held", "datastore/one") in _findings(mica))
        assert mica.datastore("one").status.state is DatastoreState.FAILED
        with pytest.raises(RefusedError) as refused:
            mica.wait(mica.start_vm("mover"))
        assert refused.value.code in ("conflict", "unavailable")
        assert second.vm("mover").status.state is VmState.STOPPED
        assert "--take-over" in run("datastore", "mount", "one", status=1)
        run("datastore", "mount", "one", "--take-over")
        _eventually(lambda: _places(mica) == {"mover": "one"})
        _eventually(lambda: _findings(second) >= {("datastore-held", "datastore/theirs")})


@pytest.mark.usefixtures("pair")
def test_thresholds(mica: Mica, run: Run) -> None:
    run("datastore", "set", "one", "--warning", "1", "--critical", "1")
    assert mica.datastore("one").status.space is SpaceLevel.CRITICAL
    assert ("datastore-full", "datastore/one") in _findings(mica)
    run("datastore", "set", "one", "--critical", "100", "--warning", "100")
    assert mica.datastore("one").status.space is SpaceLevel.OK
    assert "between 1 and" in run(
        "datastore", "set", "one", "--critical", "50", "--warning", "60", status=1
    )
    assert run("disk", "list", "--no-headers") == ""
    assert "Mica does not manage disks" in run("disk", "wipe", "X", "--serial", "X", status=1)
