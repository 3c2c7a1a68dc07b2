"""Fields of a spec by short paths."""

from __future__ import annotations

from typing import Any

import click
import pytest

from remote_api.client.cli.spec_paths import patch_of, set_path

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
        ("disks.disk9.volume=a", "there is no disk9; there are disk0, disk4"),
        ("cpus.count.x=1", "nothing below"),
        ("memory_bytes=much", "is no size"),
    ],
)
def test_what_is_refused(setting: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        set_path({"cpus": {"count": 1}, "disks": SPEC["disks"]}, setting)
