"""Datastores on real (virtual) disks: mirrors that lose a disk, groups that grow, disks that move.

One machine with many small disks; the member that is pulled hangs on USB. A real NFS server runs
outside. At the end the disks go to another Mica.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.appliance import Appliance, UnexpectedAnswerError
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.machine import Firmware
from tests.framework.nfs_server import NFS_HOST, NfsServer
from tests.framework.plugged_in import STICK_SERIAL, Setup, new_stick, plugged_in, restarted

pytestmark = pytest.mark.story

MIB = 1 << 20
DISK_BYTES = 640 * MIB
GROWN_BYTES = 1024 * MIB
LOCAL, TELLING = "LOCAL01", "TELLING01"
MIRROR, PULLED, FRESH, SPARE = "MIRROR01", "PULLED01", "FRESH01", "SPARE01"
FIRST, SECOND, THIRD = "GROUP01", "GROUP02", "GROUP03"
STRIPED = ("STRIPE01", "STRIPE02", "STRIPE03", "STRIPE04")
REBUILD_S = 240.0


def _disks(folder: Path) -> tuple[Drive, ...]:
    kinds = {PULLED: Bus.USB, STRIPED[3]: Bus.USB, TELLING: Bus.NVME}
    return tuple(
        Drive(
            name.lower(),
            blank_disk(folder / f"{name}.img", DISK_BYTES),
            kinds.get(name, Bus.VIRTIO),
            name,
        )
        for name in (LOCAL, TELLING, MIRROR, PULLED, FRESH, SPARE, FIRST, SECOND, THIRD, *STRIPED)
    )


@pytest.fixture(scope="module")
def setup(folder: Path) -> Setup:
    """The machine."""
    return Setup(folder=folder, firmware=Firmware.BIOS, disks=_disks(folder))


@pytest.fixture(scope="module")
def mica(setup: Setup) -> Iterator[Appliance]:
    """A fresh stick at its API, with all the disks blank."""
    with plugged_in(setup) as appliance:
        yield appliance


def _create(mica: Appliance, name: str, **body: Any) -> Any:
    mica.create(f"/v1/datastores/{name}", body, works=True)
    return mica.get(f"/v1/datastores/{name}")


def _status(mica: Appliance, name: str) -> Any:
    return mica.get(f"/v1/datastores/{name}")["status"]


def _wait(mica: Appliance, what: str, probe: Any, *, timeout_s: float) -> None:
    mica.machine.wait_for(what, probe, timeout_s=timeout_s, interval_s=1.0)


def _members(status: Any) -> dict[str, str]:
    return {member["disk"]: member["state"] for member in status["members"]}


def _findings(mica: Appliance) -> set[str]:
    return {finding["code"] for finding in mica.host()["findings"]}


def _refused(mica: Appliance, name: str, body: Any, problem: str) -> Any:
    answer = mica.call(
        "PUT",
        f"/v1/datastores/{name}",
        json=body,
        headers={"if-none-match": "*"},
        expect=(409, 422),
    ).json()
    assert answer["code"] == problem, answer
    return answer


def test_a_mirror_is_made_of_blank_disks(mica: Appliance) -> None:
    spec = {"kind": "raid", "disks": [mica.disk(MIRROR)["id"], mica.disk(PULLED)["id"]]}
    status = _create(mica, "mirror", spec=spec)["status"]
    assert status["state"] == "available"
    assert status["filesystem"] == "xfs"
    assert 500 * MIB < status["capacity_bytes"] < DISK_BYTES
    assert mica.disk(MIRROR)["datastore"] == "mirror"
    mica.create_volume("kept", 16 * MIB, datastore="mirror")
    _wait(
        mica,
        "the mirror is clean",
        lambda: (_status(mica, "mirror")["raid"] or {}).get("state") == "clean",
        timeout_s=REBUILD_S,
    )
    assert _members(_status(mica, "mirror")) == {MIRROR: "active", PULLED: "active"}


def test_disks_in_use_and_members_are_not_taken(mica: Appliance) -> None:
    local = {"kind": "local", "disk": MIRROR}
    _refused(mica, "stolen", {"spec": local, "wipe_serials": [MIRROR]}, "in-use")
    answer = mica.call(
        "POST",
        "/v1/host/disks/wipe",
        json={"disk": MIRROR, "wipe_serial": MIRROR},
        expect=409,
    ).json()
    assert "mirror" in answer["detail"]
    pair = {"kind": "raid", "disks": [SPARE, STICK_SERIAL]}
    _refused(mica, "stolen", {"spec": pair, "wipe_serials": [SPARE, STICK_SERIAL]}, "invalid")


def test_a_pulled_disk_is_told_and_replaced(mica: Appliance) -> None:
    mica.machine.qmp("device_del", id=PULLED.lower())
    _wait(
        mica,
        "the mirror is degraded",
        lambda: _status(mica, "mirror")["raid"]["state"] == "degraded",
        timeout_s=60,
    )
    status = _status(mica, "mirror")
    assert status["state"] == "available"
    assert _members(status) == {MIRROR: "active", PULLED: "missing"}
    assert "datastore-degraded" in _findings(mica)
    mica.create_volume("while-degraded", 16 * MIB, datastore="mirror")
    mica.act("/v1/datastores/mirror/disks/replace", {"old": PULLED, "new": FRESH}, timeout_s=120)
    assert mica.get("/v1/datastores/mirror")["spec"]["disks"] == [MIRROR, FRESH]
    _wait(
        mica,
        "the mirror is rebuilt",
        lambda: _status(mica, "mirror")["raid"]["state"] == "clean",
        timeout_s=REBUILD_S,
    )
    assert _members(_status(mica, "mirror")) == {MIRROR: "active", FRESH: "active"}
    assert "datastore-degraded" not in _findings(mica)


def test_a_spare_steps_in_and_a_working_disk_is_exchanged(mica: Appliance) -> None:
    mica.act("/v1/datastores/mirror/disks", {"disk": SPARE})
    _wait(
        mica,
        "the spare is there",
        lambda: _members(_status(mica, "mirror")).get(SPARE) == "spare",
        timeout_s=30,
    )
    mica.act("/v1/datastores/mirror/disks/replace", {"old": MIRROR, "new": SPARE})
    _wait(
        mica,
        "the exchange is done",
        lambda: (
            _members(_status(mica, "mirror")) == {FRESH: "active", SPARE: "active"}
            and _status(mica, "mirror")["raid"]["state"] == "clean"
        ),
        timeout_s=REBUILD_S,
    )
    mica.act("/v1/host/disks/wipe", {"disk": MIRROR, "wipe_serial": MIRROR})
    assert mica.disk(MIRROR)["blank"]


def test_striped_mirrors_lose_a_disk_and_get_another(mica: Appliance) -> None:
    spec = {"kind": "raid", "raid_level": "raid10", "disks": list(STRIPED)}
    status = _create(mica, "striped", spec=spec)["status"]
    assert status["raid"]["level"] == "raid10"
    assert DISK_BYTES < status["capacity_bytes"] < 2 * DISK_BYTES

    def raid_is(state: str) -> bool:
        return (_status(mica, "striped")["raid"] or {}).get("state") == state

    _wait(mica, "the stripes are clean", lambda: raid_is("clean"), timeout_s=REBUILD_S)
    mica.machine.qmp("device_del", id=STRIPED[3].lower())
    _wait(mica, "the stripes are degraded", lambda: raid_is("degraded"), timeout_s=60)
    mica.create_volume("striped-0", 16 * MIB, datastore="striped")
    mica.act(
        "/v1/datastores/striped/disks/replace", {"old": STRIPED[3], "new": MIRROR}, timeout_s=120
    )
    _wait(mica, "the stripes are rebuilt", lambda: raid_is("clean"), timeout_s=REBUILD_S)
    assert _members(_status(mica, "striped")) == dict.fromkeys((*STRIPED[:3], MIRROR), "active")
    mica.call("DELETE", "/v1/volumes/striped-0")
    operation = mica.call("DELETE", "/v1/datastores/striped", params={"wait": 20}).json()
    mica.settle(operation)


def test_a_group_spans_disks_and_takes_another(mica: Appliance) -> None:
    spec = {"kind": "lvm", "disks": [FIRST, SECOND], "filesystem": "ext4"}
    status = _create(mica, "group", spec=spec)["status"]
    before = status["capacity_bytes"]
    assert before > DISK_BYTES
    mica.act("/v1/datastores/group/disks", {"disk": THIRD})
    after = _status(mica, "group")
    assert after["capacity_bytes"] > before + 400 * MIB
    assert _members(after) == dict.fromkeys((FIRST, SECOND, THIRD), "active")


def test_datastores_grow_with_their_disks(mica: Appliance) -> None:
    _create(mica, "local", spec={"kind": "local", "disk": mica.disk(LOCAL)["id"]})
    grown = {"local": (LOCAL,), "mirror": (FRESH, SPARE), "group": (THIRD,)}
    for name, disks in grown.items():
        before = _status(mica, name)["capacity_bytes"]
        for disk in disks:
            mica.machine.qmp(
                "block_resize", **{"node-name": f"{disk.lower()}-disk", "size": GROWN_BYTES}
            )
        mica.act(f"/v1/datastores/{name}/grow")
        after = _status(mica, name)["capacity_bytes"]
        assert after > before + 300 * MIB, f"{name} grew from {before} to {after}"


def test_a_server_that_falls_silent_holds_nobody_up(mica: Appliance, folder: Path) -> None:
    with NfsServer(folder / "nfs") as server:
        nfs = {"server": NFS_HOST, "export": "/export", "port": server.port}
        status = _create(mica, "net", spec={"kind": "nfs", "nfs": nfs})["status"]
        assert (status["filesystem"], status["nfs_version"]) == ("nfs", "4.2")
        mica.create_volume("remote", 16 * MIB, datastore="net")
        server.fall_silent()
        started_s = time.monotonic()
        _wait(
            mica,
            "the datastore is missing",
            lambda: _status(mica, "net")["state"] == "missing",
            timeout_s=60,
        )
        took_s = time.monotonic() - started_s
        assert took_s < 50, f"it took {took_s:.0f} s to find out"
        assert _status(mica, "mirror")["state"] == "available"
        mica.create_volume("meanwhile", 16 * MIB, datastore="mirror")
        mica.call("DELETE", "/v1/volumes/meanwhile")
        server.speak_again()
        _wait(
            mica,
            "the datastore is back",
            lambda: _status(mica, "net")["state"] == "available",
            timeout_s=60,
        )
        assert mica.get("/v1/volumes/remote")["spec"]["datastore"] == "net"
        _another_mica_takes_it(mica, server.export / "mica-lease")
        operation = mica.call("DELETE", "/v1/datastores/net", params={"wait": 20}).json()
        mica.settle(operation)
        three = {**nfs, "version": "3", "mount_port": server.mount_port}
        status = _create(mica, "old", spec={"kind": "nfs", "nfs": three}, adopt=True)["status"]
        assert status["nfs_version"] == "3"
        assert mica.get("/v1/volumes/remote")["spec"]["datastore"] == "old"
        mica.create_volume("remote-too", 16 * MIB, datastore="old")
        for volume in ("remote", "remote-too"):
            mica.call("DELETE", f"/v1/volumes/{volume}")
        mica.act("/v1/datastores/old/unmount")
        operation = mica.call("DELETE", "/v1/datastores/old", params={"wait": 20}).json()
        mica.settle(operation)
        spec = {"kind": "nfs", "nfs": {**nfs, "export": "/nowhere"}}
        with pytest.raises(UnexpectedAnswerError, match="can't be mounted"):
            mica.create("/v1/datastores/nowhere", {"spec": spec}, works=True)


def _another_mica_takes_it(mica: Appliance, lease: Path) -> None:
    """Another host writes its lease by force; this one notices, and takes the datastore back."""
    held = json.loads(lease.read_bytes())
    assert not held["released"]
    other = {**held, "host_uuid": "another", "host_name": "another", "counter": 1}
    lease.write_bytes(json.dumps(other).encode().ljust(511) + b"\n")
    _wait(
        mica,
        "the datastore is another's",
        lambda: _status(mica, "net")["state"] == "failed",
        timeout_s=30,
    )
    assert "Host another" in _status(mica, "net")["reason"]
    assert "datastore-held" in _findings(mica)
    query = {"wait": 60, "take_over": "true"}
    mica.settle(mica.call("POST", "/v1/datastores/net/mount", params=query).json())
    assert _status(mica, "net")["state"] == "available"
    assert json.loads(lease.read_bytes())["host_uuid"] == held["host_uuid"]


def test_health_is_told_where_a_disk_tells_it(mica: Appliance) -> None:
    def told() -> bool:
        health = mica.disk(TELLING)["health"]
        return health is not None and health["state"] == "ok"

    _wait(mica, "the NVMe disk's health is known", told, timeout_s=120)
    assert mica.disk(TELLING)["health"]["temperature_celsius"] > 0
    assert mica.disk(FRESH)["health"]["state"] == "unknown"


def test_unmount_rename_and_mount(mica: Appliance) -> None:
    mica.create_volume("named", 16 * MIB, datastore="local")
    mica.act("/v1/datastores/local/unmount")
    assert _status(mica, "local")["state"] == "unmounted"
    mica.act("/v1/datastores/local/rename", {"id": "fast"})
    mica.act("/v1/datastores/fast/mount")
    assert mica.get("/v1/volumes/named")["spec"]["datastore"] == "fast"


def test_everything_is_there_after_a_power_cut_and_on_another_mica(
    setup: Setup, mica: Appliance
) -> None:
    assert mica.token is not None
    mica.machine.cut_power()
    with restarted(setup, token=mica.token) as again:
        for name in ("mirror", "group", "fast"):
            _wait(
                again,
                f"{name} is available",
                lambda name=name: _status(again, name)["state"] == "available",
                timeout_s=90,
            )
        volumes = {volume["id"] for volume in again.get("/v1/volumes")["items"]}
        assert volumes == {"kept", "while-degraded", "named"}
        for name in ("mirror", "group", "fast"):
            operation = again.call("DELETE", f"/v1/datastores/{name}", params={"wait": 20}).json()
            again.settle(operation)
        assert {d["adoptable"] for d in again.get("/v1/host/disks")["items"]} == {
            None,
            "local",
            "raid",
            "lvm",
        }
        for disks in ([SPARE, MIRROR], [SPARE, SECOND]):
            body = {"spec": {"kind": "raid", "disks": disks}}
            _refused(again, "mixed", body, "conflict")
    other = Setup(
        folder=setup.folder / "other", firmware=Firmware.BIOS, disks=setup.disks, name="other"
    )
    new_stick(other)
    with plugged_in(other) as second:
        for name, spec in (
            ("alpha", {"kind": "raid", "disks": [SPARE]}),
            ("beta", {"kind": "lvm", "disks": [SECOND]}),
            ("gamma", {"kind": "local", "disk": LOCAL}),
        ):
            second.create(f"/v1/datastores/{name}", {"spec": spec, "adopt": True}, works=True)
        found = {v["id"]: v["spec"]["datastore"] for v in second.get("/v1/volumes")["items"]}
        assert found == {"kept": "alpha", "while-degraded": "alpha", "named": "gamma"}
        spec = second.get("/v1/datastores/alpha")["spec"]
        assert sorted(spec["disks"]) == [FRESH, SPARE]
        with pytest.raises(UnexpectedAnswerError, match="is in use"):
            second.create("/v1/datastores/twin", {"spec": {"kind": "raid", "disks": [SPARE]}})
