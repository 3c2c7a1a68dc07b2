"""The `mica` command against a running host, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.hosted import HostedMica, unclaimed_mica
from tests.framework.repository import REPOSITORY

MIB = 1 << 20


class Command:
    """Runs `mica` with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}

    def __call__(self, *words: str, status: int = 0, given: str = "") -> str:
        """Its output."""
        done = subprocess.run(
            [sys.executable, "-m", "remote_api.client", *words],
            cwd=REPOSITORY,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[HostedMica]:
    """A host that nobody has claimed."""
    with unclaimed_mica(tmp_path) as host:
        yield host


def test_first_contact(fresh: HostedMica, tmp_path: Path) -> None:
    mica = Command(tmp_path)
    where = fresh.address.removeprefix("https://")
    assert "no host is configured" in mica("vm", "list", status=1)
    other = "0" * 64
    code = ("--code", fresh.claim_code)
    assert "is pinned" in mica("claim", where, *code, "--fingerprint", other, status=4)
    assert "not confirmed" in mica("claim", where, *code, status=4, given="n\n")
    assert "claimed; context lab added" in mica("claim", where, *code, "--name", "lab", given="y\n")
    store = tmp_path / "config/mica/contexts.json"
    assert store.stat().st_mode & 0o777 == 0o600
    assert json.loads(mica("-o", "json", "context", "list"))[0]["name"] == "lab"
    assert json.loads(mica("-o", "json", "token", "whoami"))["id"] == "admin"
    assert "hostname" in mica("host")
    assert "IOMMU" in mica("host", "show")
    mica("host", "devices")
    mica("disk", "list")
    folder = fresh.datastore_folder("main")
    assert "is ready" in mica("datastore", "create", "main", "--path", str(folder))
    assert mica("datastore", "list").splitlines()[1].startswith("main  directory  available")

    disk = tmp_path / "disk.raw"
    disk.write_bytes(os.urandom(2 * MIB))
    assert "is ready" in mica("image", "upload", "disk", str(disk), "--datastore", "main")
    assert "already" in mica("image", "upload", "disk", str(disk), "--datastore", "main", status=1)
    downloaded = subprocess.run(
        [sys.executable, "-m", "remote_api.client", "image", "download", "disk", "-"],
        cwd=REPOSITORY,
        env=mica.environment,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert downloaded.stdout == disk.read_bytes()
    unknown = mica("image", "upload", "x", __file__, "--datastore", "main", status=1)
    assert "set the format" in unknown
    mica("volume", "create", "v", "--datastore", "main", "--size", "4M", "--image", "disk")
    assert "8 MiB" in mica("volume", "resize", "v", "8M")
    mica("vm", "create", "web", "--datastore", "main", "--memory", "64M", "--disk", "v")
    vm = json.loads(mica("-o", "json", "vm", "show", "web"))
    assert [(disk["volume"], disk["key"]) for disk in vm["spec"]["disks"]] == [("v", "disk0")]
    assert "web" in mica("vm", "list")
    mica("vm", "patch", "web", '{"cpus": {"count": 2}}')
    bad = mica("vm", "patch", "web", '{"cpus": {"count": 0}}', status=1)
    assert "cpus.count" in bad
    assert bad.count("\n") == 1
    mica("volume", "delete", "v", "--yes", status=1)
    _devices(mica, tmp_path)
    _changes_while_it_runs(mica)
    mica("vm", "delete", "web", "--with-volumes", "--yes")
    assert mica("volume", "list", "--no-headers") == ""
    mica("image", "delete", "disk", "--yes")

    secret = mica("token", "create", "eye", "--role", "viewer").strip()
    assert secret.startswith("mica_eye_")
    mica("token", "delete", "eye", "--yes")
    kinds = {operation["kind"] for operation in json.loads(mica("-o", "json", "operation", "list"))}
    assert {"datastore.create", "image.upload", "volume.create"} <= kinds
    mica("context", "forget", "lab", "--yes")
    assert mica("context", "list", "--no-headers") == ""


def _changes_while_it_runs(mica: Command) -> None:
    """What is set at once says nothing, what waits for the next start does, the rest is refused."""
    mica("vm", "create", "idle", "--datastore", "main", "--firmware", "bios", "--start")
    waits = "VM idle is running: boot.menu_s takes effect at its next start"
    assert waits in mica("vm", "set", "idle", "boot.menu_s=5", "description=new")
    assert "next start" not in mica("vm", "set", "idle", "nics.nic0.connected=false", "name=Idle")
    both = mica("vm", "patch", "idle", '{"boot": {"menu_s": 0, "order": ["cdrom"]}}')
    assert "boot.order, boot.menu_s take effect at its next start" in both
    assert "next start" not in mica("-o", "json", "vm", "set", "idle", "boot.menu_s=1")
    refused = mica("vm", "set", "idle", "serial_ports=2", status=1)
    assert "while the VM is stopped: shut the VM down first. (serial_ports)" in refused
    mica("vm", "stop", "idle", "--force")
    assert "next start" not in mica("vm", "set", "idle", "boot.menu_s=3", "serial_ports=2")
    mica("vm", "delete", "idle", "--yes")


def _devices(mica: Command, folder: Path) -> None:
    """Disks, drives and cards of the VM `web`, and what is refused about them."""
    made = mica("vm", "attach", "web", "more", "--new", "1M", "--bus", "sata")
    assert made.splitlines() == [
        "volume more created (1 MiB)",
        "volume more attached to VM web as disk1",
    ]
    assert "it is disk1" in mica("vm", "attach", "web", "more", status=1)
    assert "disk1 more" in mica("vm", "detach", "web", "else", status=1)
    mica("vm", "detach", "web", "more")
    assert "vm " in mica("volume", "show", "more")
    mica("volume", "delete", "more", "--yes")
    iso = folder / "a.iso"
    iso.write_bytes(bytes(16 * 2048) + b"\x01CD001\x01" + bytes(2041) + bytes(8 * 2048))
    mica("image", "upload", "iso", str(iso), "--datastore", "main", "--format", "iso")
    assert "no image in a CD-ROM drive" in mica("vm", "eject", "web", status=1)
    mica("vm", "insert", "web", "iso")
    assert "cdrom0 iso" in mica("vm", "show", "web")
    mica("vm", "insert", "web", "iso", "--drive", "cdrom0")
    mica("vm", "eject", "web")
    mica("image", "delete", "iso", "--yes")
    assert "nic1 on vm-network added to VM web" in mica("vm", "add-nic", "web", "--model", "e1000e")
    mica("vm", "remove-nic", "web", "nic1")
    assert "has: nic0" in mica("vm", "remove-nic", "web", "nic1", status=1)
    assert "is stopped" in mica("vm", "wait", "web", "stopped")
    assert "is still stopped after 1 s" in mica("vm", "wait", "web", "--within", "1", status=3)
    assert "is not a valid name: use lower-case letters" in mica("vm", "show", "web?x=1", status=2)
    failed = ("vm", "create", "other", "--datastore", "main", "--new-disk", "1M", "--nic", "no")
    assert "no port group no" in mica(*failed, status=1)
    assert "other-disk-0" not in mica("volume", "list")
    shown = mica("operation", "show", json.loads(mica("-o", "json", "operation", "list"))[0]["id"])
    assert "datastore.create" in shown


def test_host_that_is_not_there(tmp_path: Path) -> None:
    mica = Command(tmp_path)
    mica.environment["MICA_HOST"] = "127.0.0.1:1"
    assert "can't be reached" in mica("vm", "list", status=3)


def test_output_that_goes_nowhere(tmp_path: Path) -> None:
    """A full disk is one line, a reader that has had enough is none."""
    mica = Command(tmp_path)
    for target, status, told in (("/dev/full", 1, "mica: No space left"), ("closed", 1, "")):
        read, write = os.pipe()
        os.close(read)
        output = write if target == "closed" else os.open(target, os.O_WRONLY)
        done = subprocess.run(
            [sys.executable, "-m", "remote_api.client", "completion", "bash"],
            cwd=REPOSITORY,
            env=mica.environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status
        assert done.stderr.startswith(told)
        assert done.stderr.count("\n") == bool(told)
