"""Every change's dry run, on a real host: it answers as the change would, and changes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from remote_api.client.sdk import Mica
from remote_api.resources.table import all_routes
from tests.framework.api import checked_client
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica
from vmkernel.model import (
    BootSpec,
    DisplayModel,
    Firmware,
    KernelBoot,
    VmSpec,
    VolumeSpec,
)

MIB = 1 << 20
NEW = {"if-none-match": "*"}
PATCH = {"content-type": "application/merge-patch+json"}
BY_THEMSELVES = ("mica-lease", "qemu.log", "qemu.log.last")
"""Files that change without any request: the lease's counter, and what QEMU prints."""
LISTS = ("vms", "volumes", "images", "datastores", "tokens", "operations", "webhooks")

SECRET = "whsec_" + "QUJD" * 10
HOOK = {"url": "https://203.0.113.1/hook", "secret": SECRET, "enabled": False}
Change = tuple[str, str, Any, dict[str, str]]
CHANGES: dict[str, Change] = {
    "putVm": ("PUT", "/v1/vms/new", {"spec": {"datastore": "main"}}, NEW),
    "patchVm": ("PATCH", "/v1/vms/off", {"spec": {"cpus": {"count": 3}}}, PATCH),
    "deleteVm": ("DELETE", "/v1/vms/off?with_volumes=true", None, {}),
    "cloneVm": ("POST", "/v1/vms/off/clone", {"id": "copy"}, {}),
    "startVm": ("POST", "/v1/vms/off/start", None, {}),
    "pauseVm": ("POST", "/v1/vms/on/pause", None, {}),
    "suspendVm": ("POST", "/v1/vms/on/suspend", None, {}),
    "shutDownVm": ("POST", "/v1/vms/on/shutdown", None, {}),
    "powerOffVm": ("POST", "/v1/vms/on/power-off", None, {}),
    "resetVm": ("POST", "/v1/vms/on/reset", None, {}),
    "createSnapshot": ("PUT", "/v1/vms/off/snapshots/later", {"spec": {}}, NEW),
    "revertToSnapshot": ("POST", "/v1/vms/off/snapshots/first/revert", {}, {}),
    "deleteSnapshot": ("DELETE", "/v1/vms/off/snapshots/first", None, {}),
    "createVolume": (
        "PUT",
        "/v1/volumes/new",
        {"spec": {"datastore": "main", "size_bytes": 64 * MIB}},
        NEW,
    ),
    "patchVolume": ("PATCH", "/v1/volumes/free", {"spec": {"size_bytes": 128 * MIB}}, PATCH),
    "checkVolume": ("POST", "/v1/volumes/free/check", {}, {}),
    "deleteVolume": ("DELETE", "/v1/volumes/free", None, {}),
    "captureImage": ("POST", "/v1/images/shot/capture", {"spec": {"volume": "free"}}, {}),
    "deleteImage": ("DELETE", "/v1/images/kernel", None, {}),
    "patchDatastore": ("PATCH", "/v1/datastores/main", {"spec": {"warning_percent": 50}}, PATCH),
    "createDatastore": ("PUT", "/v1/datastores/more", None, NEW),
    "createWebhook": ("PUT", "/v1/webhooks/new", {"spec": HOOK}, NEW),
    "patchWebhook": ("PATCH", "/v1/webhooks/old", {"spec": {"description": "Mine."}}, PATCH),
    "deleteWebhook": ("DELETE", "/v1/webhooks/old", None, {}),
    "deleteDatastore": ("DELETE", "/v1/datastores/idle", None, {}),
    "renameDatastore": ("POST", "/v1/datastores/idle/rename", {"id": "other"}, {}),
    "unmountDatastore": ("POST", "/v1/datastores/idle/unmount", None, {}),
    "mountDatastore": ("POST", "/v1/datastores/idle/mount", {}, {}),
}
"""By the operation of the document; what a hosted host can't do is in OTHERWISE."""
OTHERWISE = {
    "resumeVm": "as pauseVm",
    "discardVmState": "as startVm",
    "updateVmSecureBoot": "as startVm",
    "keepVolume": "needs a volume that a VM's creation has made; as checkVolume",
    "flattenVolume": "needs a linked clone; as patchVolume",
    "pullImage": "needs a server; as captureImage",
    "growDatastore": "hosted datastores have no disks",
    "addDatastoreDisk": "hosted datastores have no disks",
    "replaceDatastoreDisk": "hosted datastores have no disks",
    "wipeHostDisk": "hosted mode touches no disks",
    "powerHost": "hosted mode has no power",
}


def test_every_dry_run_is_tried() -> None:
    possible = {route.name for route in all_routes() if route.has_dry_run}
    assert possible == set(CHANGES) | set(OTHERWISE)


@pytest.fixture(scope="module")
def things(host: HostedMica) -> Iterator[HostedMica]:
    """A VM that is off, with a disk and a snapshot, one that runs, and others."""
    more = {"spec": {"kind": "directory", "path": str(host.datastore_folder("more"))}}
    method, path, _, headers = CHANGES["createDatastore"]
    CHANGES["createDatastore"] = (method, path, more, headers)
    with host.client() as mica, checked_client(mica) as http:
        idle = {"spec": {"kind": "directory", "path": str(host.datastore_folder("idle"))}}
        _fine(http.put("/v1/datastores/idle?wait=60", json=idle, headers=NEW))
        _fine(http.put("/v1/webhooks/old", json={"spec": HOOK}, headers=NEW))
        upload_guest(mica, "guest-")
        upload_guest(mica, "")
        for name in ("disk", "free"):
            spec = VolumeSpec(datastore="main", size_bytes=64 * MIB)
            mica.wait(mica.create_volume(name, spec))
        boot = BootSpec(kernel=KernelBoot(kernel="guest-kernel", initrd="guest-initrd"))
        plain = VmSpec(
            datastore="main",
            memory_bytes=256 * MIB,
            firmware=Firmware.BIOS,
            boot=boot,
            display=DisplayModel.NONE,
        )
        _fine(http.put("/v1/vms/on", json=_wire(plain), headers=NEW))
        with_disk = {**_wire(plain)["spec"], "disks": [{"volume": "disk"}]}
        _fine(http.put("/v1/vms/off", json={"spec": with_disk}, headers=NEW))
        _fine(http.put("/v1/vms/off/snapshots/first?wait=60", json={"spec": {}}, headers=NEW))
        _fine(http.post("/v1/vms/on/start?wait=60"))
        yield host


def _wire(spec: VmSpec) -> dict[str, Any]:
    import msgspec

    return {"spec": msgspec.to_builtins(spec)}


def _fine(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code < 300, answer.text
    return answer


def _files(folder: Path) -> dict[str, str]:
    """What is on the datastores and in the host's state, by path."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in {*folders, *files}.difference(BY_THEMSELVES):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size < MIB:
                data = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                data = str(path.lstat().st_size) if path.is_file() else ""
            found[str(path)] = data
    return found


def _state(http: httpx.Client, host: HostedMica) -> dict[str, Any]:
    state: dict[str, Any] = {
        name: [
            (each["id"], each.get("revision"), each.get("spec"), each.get("state"))
            for each in http.get(f"/v1/{name}?limit=1000").json()["items"]
        ]
        for name in LISTS
    }
    state["snapshots"] = http.get("/v1/vms/off/snapshots").json()["items"]
    state["states"] = [http.get(f"/v1/vms/{vm}").json()["status"]["state"] for vm in ("on", "off")]
    state["files"] = {
        **_files(host.folder / "datastores"),
        **_files(host.folder / "state"),
    }
    return state


@pytest.mark.parametrize("name", CHANGES)
def test_a_dry_run_changes_nothing(things: HostedMica, mica: Mica, name: str) -> None:
    method, path, body, headers = CHANGES[name]
    path += ("&" if "?" in path else "?") + "dry_run=true"
    with checked_client(mica) as http:
        before = _state(http, things)
        answer = _fine(http.request(method, path, json=body, headers=headers))
        after = _state(http, things)
        files, files_before = after.pop("files"), before.pop("files")
        assert after == before
        assert {path for path, _ in files.items() ^ files_before.items()} == set()
        if answer.status_code == 200 and "kind" in answer.json():
            assert answer.json()["state"] == "planned"
            gone = http.get(f"/v1/operations/{answer.json()['id']}")
            assert gone.status_code == 404


def test_it_tells_no_secret(things: HostedMica, mica: Mica) -> None:
    with checked_client(mica) as http:
        for name in ("createWebhook", "patchWebhook"):
            method, path, body, headers = CHANGES[name]
            answer = http.request(method, f"{path}?dry_run=true", json=body, headers=headers)
            assert SECRET not in _fine(answer).text


def test_it_answers_the_object_as_it_would_be(things: HostedMica, mica: Mica) -> None:
    with checked_client(mica) as http:
        made = http.put(
            "/v1/vms/new?dry_run=true",
            json={"spec": {"datastore": "main", "nics": [{}]}},
            headers=NEW,
        ).json()
        assert made["status"]["state"] == "stopped"
        assert made["spec"]["nics"][0]["mac"]
        path, revision = "/v1/vms/off", http.get("/v1/vms/off").json()["revision"]
        change = {"spec": {"cpus": {"count": 3}}}
        planned = http.patch(f"{path}?dry_run=true", json=change, headers=PATCH).json()
        assert (planned["spec"]["cpus"]["count"], planned["revision"]) == (3, revision + 1)
        running = http.patch(
            "/v1/vms/on?dry_run=true", json={"spec": {"name": "Web"}}, headers=PATCH
        ).json()
        assert running["spec"]["name"] == "Web"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("PUT", "/v1/vms/off", {"spec": {"datastore": "main"}}, NEW, 412),
        ("PUT", "/v1/vms/new", {"spec": {"datastore": "nowhere"}}, NEW, 422),
        ("PUT", "/v1/vms/new", {"spec": {"datastore": "main", "cpus": {"count": 0}}}, NEW, 422),
        ("DELETE", "/v1/vms/on", None, {}, 409),
        ("PATCH", "/v1/vms/on", {"spec": {"firmware": "uefi"}}, PATCH, 409),
        ("POST", "/v1/vms/off/reset", None, {}, 409),
        ("DELETE", "/v1/volumes/disk", None, {}, 409),
        ("DELETE", "/v1/datastores/nowhere", None, {}, 404),
    ],
)
def test_it_fails_as_the_change_would(
    things: HostedMica,
    mica: Mica,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
) -> None:
    with checked_client(mica) as http:
        dry = http.request(method, f"{path}?dry_run=true", json=body, headers=headers)
        real = http.request(method, path, json=body, headers=headers)
        assert (dry.status_code, real.status_code) == (status, status)
        assert (dry.json()["code"], dry.json()["detail"]) == (
            real.json()["code"],
            real.json()["detail"],
        )
