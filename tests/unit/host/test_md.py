"""md arrays as a made-up sysfs shows them, LVM's reports, NFS's options."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from vmkernel.host.lvm import parse_physical_volumes, volume_node
from vmkernel.host.md import MdArray, Superblock, _superblock, arrays, parse_export
from vmkernel.host.mounts import Mount
from vmkernel.host.nfs import check_nfs, mount_nfs, nfs_options, nfs_source, spoken_version
from vmkernel.model import MicaError, NfsSpec, NfsVersion

EXPORT = """\
MD_LEVEL=raid1
MD_DEVICES=2
MD_NAME=any:mica-0a1b2c3d
MD_ARRAY_SIZE=638.00MiB
MD_UUID=5b2a0c2f:7d1f6a54:0c8c0a0e:4f1d2c3b
MD_EVENTS=17
"""


def _array(sys: Path, name: str, members: dict[str, tuple[str, str]], **files: str) -> None:
    md = sys / "block" / name / "md"
    md.mkdir(parents=True)
    common = {
        "level": "raid1",
        "array_state": "clean",
        "raid_disks": "2",
        "degraded": "0",
        "sync_action": "idle",
        "sync_completed": "none",
    }
    for key, text in {**common, **files}.items():
        (md / key).write_text(text + "\n")
    (sys / "block" / name / "size").write_text("2048\n")
    for device, (slot, state) in members.items():
        place = md / f"dev-{device}"
        place.mkdir()
        (place / "slot").write_text(slot + "\n")
        (place / "state").write_text(state + "\n")
        real = sys / "class/block" / device
        real.mkdir(parents=True, exist_ok=True)
        (place / "block").symlink_to(real)


def _one(tmp_path: Path) -> MdArray:
    (found,) = arrays(tmp_path)
    return found


def test_a_rebuilding_array(tmp_path: Path) -> None:
    _array(
        tmp_path,
        "md127",
        {"vda1": ("0", "in_sync"), "vdb1": ("1", "spare")},
        degraded="1",
        sync_action="recover",
        sync_completed="1000 / 4000",
        sync_speed="500",
        raid_disks="2 (3)",
    )
    (tmp_path / "block/sda").mkdir()
    found = _one(tmp_path)
    assert (found.name, found.path, found.level) == ("md127", Path("/dev/md127"), "raid1")
    assert (found.sync_done, found.sync_total, found.sync_kib_per_s) == (1000, 4000, 500)
    assert (found.raid_disks, found.degraded, found.size_bytes) == (2, 1, 1 << 20)
    assert [(m.device, m.slot, set(m.states), m.present) for m in found.members] == [
        ("vda1", 0, {"in_sync"}, True),
        ("vdb1", 1, {"spare"}, True),
    ]
    assert found.running


def test_a_member_that_went_away_unnoticed(tmp_path: Path) -> None:
    _array(tmp_path, "md0", {"sdb1": ("1", "in_sync,write_error")})
    (tmp_path / "class/block/sdb1").rmdir()
    (member,) = _one(tmp_path).members
    assert not member.present
    assert member.states == {"in_sync", "write_error"}


@pytest.mark.parametrize("state", ["clear", "inactive", "broken"])
def test_arrays_that_do_not_run(tmp_path: Path, state: str) -> None:
    _array(tmp_path, "md0", {}, array_state=state)
    assert not _one(tmp_path).running


def test_nothing_is_no_array(tmp_path: Path) -> None:
    assert arrays(tmp_path) == ()


def test_marks_of_members() -> None:
    uuid = "5b2a0c2f:7d1f6a54:0c8c0a0e:4f1d2c3b"
    mark = _superblock(parse_export(EXPORT))
    assert mark == Superblock(
        uuid=uuid, name="any:mica-0a1b2c3d", level="raid1", devices=2, events=17
    )
    assert mark.ours
    foreign = _superblock(parse_export(EXPORT.replace("any:mica-", "host:")))
    assert foreign is not None
    assert not foreign.ours
    for broken in ("", "MD_UUID=\nMD_DEVICES=2", "MD_UUID=a:b\nMD_DEVICES=x"):
        assert _superblock(parse_export(broken)) is None


def test_reports_of_lvm() -> None:
    rows = [
        {"pv_name": "/dev/vda1", "pv_uuid": "a", "vg_name": "mica-1", "vg_uuid": "g"},
        {"pv_name": "[unknown]", "pv_uuid": "b", "vg_name": "mica-1", "vg_uuid": "g"},
        {"pv_name": "/dev/vdc1", "pv_uuid": "c", "vg_name": "", "vg_uuid": ""},
    ]
    found = parse_physical_volumes(json.dumps({"report": [{"pv": rows}]}).encode())
    assert [(pv.device, pv.uuid, pv.ours) for pv in found] == [
        (Path("/dev/vda1"), "a", True),
        (None, "b", True),
    ]
    for broken in (b"", b"{}", b'{"report": 3}', b'{"report": [{"pv": [5]}]}'):
        assert parse_physical_volumes(broken) == ()
    assert volume_node("mica-1") == Path("/dev/mapper/mica--1-datastore")


def test_options_of_nfs() -> None:
    spec = NfsSpec(server="filer", export="/pool/vms")
    assert nfs_source(spec) == "filer:/pool/vms"
    options = nfs_options(spec, NfsVersion.V4_2, "192.0.2.1").split(",")
    assert options[:3] == ["vers=4.2", "proto=tcp", "addr=192.0.2.1"]
    assert {"softerr", "port=2049"} <= set(options)
    assert not [word for word in options if word.startswith(("nolock", "clientaddr"))]
    options = nfs_options(spec, NfsVersion.V4_1, "2001:db8::1").split(",")
    assert {"vers=4.1", "proto=tcp6", "softerr", "port=2049"} <= set(options)
    assert not [word for word in options if word.startswith(("nolock", "clientaddr"))]
    options = nfs_options(spec, NfsVersion.V4_0, "192.0.2.1").split(",")
    assert {"vers=4.0", "clientaddr=0.0.0.0"} <= set(options)
    old = NfsSpec(server="2001:db8::1", export="/x", version=NfsVersion.V3, mount_port=20048)
    assert nfs_source(old) == "[2001:db8::1]:/x"
    options = nfs_options(old, NfsVersion.V3, "2001:db8::1").split(",")
    assert {"vers=3", "proto=tcp6", "nolock", "mountport=20048"} <= set(options)
    assert not any(word.startswith("port=") for word in options)


@pytest.mark.parametrize(
    ("asked", "speaks", "tried"),
    [
        (None, {"4.2", "4.1", "3"}, ["nfs4 4.2"]),
        (None, {"4.0"}, ["nfs4 4.2", "nfs4 4.1", "nfs4 4.0"]),
        (None, {"3"}, ["nfs4 4.2", "nfs4 4.1", "nfs4 4.0", "nfs 3"]),
        (NfsVersion.V4_1, {"4.2", "4.1", "3"}, ["nfs4 4.1"]),
        (None, set(), ["nfs4 4.2", "nfs4 4.1", "nfs4 4.0", "nfs 3"]),
    ],
)
def test_the_version_of_nfs_is_the_one_asked_for_or_the_newest(
    monkeypatch: pytest.MonkeyPatch, asked: NfsVersion | None, speaks: set[str], tried: list[str]
) -> None:
    calls: list[str] = []

    def mount_text(_source: str, _target: Path, kind: str, options: str) -> None:
        version = options.partition(",")[0].removeprefix("vers=")
        calls.append(f"{kind} {version}")
        if version not in speaks:
            raise OSError(errno.EPROTONOSUPPORT, "not spoken")

    monkeypatch.setattr("vmkernel.host.nfs.mount_text", mount_text)
    spec = NfsSpec(server="192.0.2.1", export="/x", version=asked)
    if speaks:
        mount_nfs(spec, Path("/m"))
    else:
        with pytest.raises(OSError, match="not spoken"):
            mount_nfs(spec, Path("/m"))
    assert calls == tried
    version = calls[-1].partition(" ")[2]
    mounted = Mount("0:1", Path("/m"), "nfs4", "s:/x", ("rw", f"vers={version}", "softerr"))
    assert spoken_version(mounted) == version


def test_a_server_that_refuses_is_not_asked_in_older_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def mount_text(_source: str, _target: Path, kind: str, _options: str) -> None:
        calls.append(kind)
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("vmkernel.host.nfs.mount_text", mount_text)
    with pytest.raises(PermissionError):
        mount_nfs(NfsSpec(server="192.0.2.1", export="/x"), Path("/m"))
    assert calls == ["nfs4"]


@pytest.mark.parametrize(
    ("server", "export", "more", "field"),
    [
        ("a b", "/x", {}, "server"),
        ("-x", "/x", {}, "server"),
        ("host,addr=1.2.3.4", "/x", {}, "server"),
        ("host\n", "/x", {}, "server"),
        ("host", "x", {}, "export"),
        ("host", "/x,hard", {}, "export"),
        ("host", "/x/../y", {}, "export"),
        ("host", "/x\ny", {}, "export"),
        ("host", "/x", {"mount_port": 1}, "mount_port"),
    ],
)
def test_nothing_odd_gets_into_the_options(
    server: str, export: str, more: dict[str, int], field: str
) -> None:
    with pytest.raises(MicaError) as caught:
        check_nfs(NfsSpec(server=server, export=export, **more))  # type: ignore[arg-type]
    assert caught.value.problem.fields[0].pointer == f"/spec/nfs/{field}"
