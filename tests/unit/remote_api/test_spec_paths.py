"""Fields of a spec by short paths."""

from __future__ import annotations

from typing import Any

import click
import msgspec
import pytest

from remote_api.client.cli.spec_paths import patch_of, set_path, spec_as_json, waiting_for_start
from vmkernel.model import BootSpec, CdromSpec, DiskSpec, NicSpec, VmSpec

SPEC: dict[str, Any] = {
    "cpus": {"count": 1, "model": "host"},
    "memory_bytes": 1 << 30,
    "labels": {"owner": "me"},
    "watchdog": None,
    "disks": [
        {"key": "disk0", "volume": "a", "limits": None},
        {"key": "disk4", "volume": "b", "limits": None},
    ],
}


@pytest.mark.parametrize(
    ("settings", "patch"),
    [
        (["cpus.count=4"], {"cpus": {"count": 4}}),
        (["cpus.count=1"], {}),
        (["memory_bytes=2G"], {"memory_bytes": 2 << 30}),
        (["memory.max_bytes=4G"], {"memory": {"max_bytes": 4 << 30}}),
        (["labels.owner="], {"labels": {"owner": None}}),
        (["tpm=true", "name=a b"], {"tpm": True, "name": "a b"}),
        (["watchdog.action=reset"], {"watchdog": {"action": "reset"}}),
        (['boot.order=["cdrom"]'], {"boot": {"order": ["cdrom"]}}),
        (
            ["disks.disk4.limits.bytes.per_s=10M"],
            {
                "disks": [
                    SPEC["disks"][0],
                    {"key": "disk4", "volume": "b", "limits": {"bytes": {"per_s": 10 << 20}}},
                ]
            },
        ),
        (["disks.0.volume=c"], {"disks": [{**SPEC["disks"][0], "volume": "c"}, SPEC["disks"][1]]}),
    ],
)
def test_patches(settings: list[str], patch: dict[str, Any]) -> None:
    assert patch_of(SPEC, tuple(settings)) == patch


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cpus.count", "write PATH=VALUE"),
        ("=4", "write PATH=VALUE"),
        ("disks.disk9.volume=a", "disk9 does not exist; the VM has disk0, disk4"),
        ("cpus.count.x=1", "count has no fields"),
        ("memory_bytes=much", "is not a size"),
    ],
)
def test_what_is_refused(setting: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        set_path({"cpus": {"count": 1}, "disks": SPEC["disks"]}, setting)


def test_lists_of_a_spec_as_the_host_answers_it() -> None:
    spec = VmSpec(
        datastore="main",
        disks=(DiskSpec(volume="a", key="disk0"), DiskSpec(volume="b", key="disk7")),
        nics=(NicSpec(key="nic0"),),
    )
    patch = patch_of(
        spec_as_json(spec), ("nics.nic0.connected=false", "disks.disk7.limits.iops.per_s=500")
    )
    assert patch["nics"][0]["connected"] is False
    assert patch["disks"][0] == spec_as_json(spec)["disks"][0]
    assert patch["disks"][1]["limits"] == {"iops": {"per_s": 500}}


def test_lists_of_a_spec_that_no_host_has_numbered_yet() -> None:
    spec = spec_as_json(
        VmSpec(
            datastore="main",
            disks=(DiskSpec(volume="a"), DiskSpec(volume="b")),
            nics=(NicSpec(),),
            cdroms=(CdromSpec(image="i"),),
        )
    )
    for setting in (
        "disks.disk1.cache=writeback",
        "nics.nic0.connected=false",
        "nics.0.model=e1000e",
        "cdroms.cdrom0.image=j",
    ):
        set_path(spec, setting)
    assert [disk["cache"] for disk in spec["disks"]] == ["none", "writeback"]
    assert (spec["nics"][0]["connected"], spec["nics"][0]["model"]) == (False, "e1000e")
    assert spec["cdroms"][0]["image"] == "j"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("name=42", "42"),
        ("name=true", "true"),
        ('name="42"', "42"),
        ("labels.tier=1", "1"),
        ("labels.since=2024", "2024"),
        ("cpus.count=1", 1),
        ("cpus.model=486", "486"),
        ("disks.disk0.volume=7", "7"),
        ("tpm=true", True),
        ("unknown.field=1", 1),
    ],
)
def test_values_have_the_type_of_their_field(setting: str, value: object) -> None:
    spec = spec_as_json(VmSpec(datastore="main", disks=(DiskSpec(volume="a"),)))
    set_path(spec, setting)
    at: Any = spec
    for part in setting.partition("=")[0].split("."):
        at = at[0] if isinstance(at, list) else at[part]
    assert at == value


def test_what_waits_for_the_next_start() -> None:
    before = VmSpec(
        datastore="main",
        disks=(DiskSpec(volume="a", key="disk0"), DiskSpec(volume="b", key="disk1")),
    )
    changed = msgspec.structs.replace(
        before,
        name="new",
        memory_bytes=1 << 30,
        boot=BootSpec(menu_s=5),
        disks=(before.disks[0], msgspec.structs.replace(before.disks[1], boot_index=3)),
    )
    assert waiting_for_start(before, changed) == ["disks.disk1.boot_index", "boot.menu_s"]
    assert waiting_for_start(changed, changed) == []
