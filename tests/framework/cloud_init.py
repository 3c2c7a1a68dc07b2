"""Debian's own cloud-init, given the seeds that Mica makes, as in a guest (cloud_init_guest.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs

__all__ = ["Provisioned", "Start", "provisioned", "verdicts"]

GUEST = Path(__file__).with_name("cloud_init_guest.py")
JUDGE = Path(__file__).with_name("cloud_init_verdict.py")
ANSWER = "\nANSWER "
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Start:
    """One start of the guest: the CD-ROM in it and its cards' addresses."""

    seed: Path
    macs: Sequence[str] = ()


class Provisioned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a guest is after a start."""

    label: str
    files: list[str]
    errors: list[str]
    """cloud-init's own, and its warnings."""
    instance_id: str
    hostname: str
    meta_data: dict[str, str]
    password_hashes: dict[str, str]
    authorized_keys: dict[str, list[str]]
    """By user; only users with a home directory."""
    cards: dict[str, str]
    """Addresses by name."""
    network_units: dict[str, str]
    """systemd-networkd's, rendered by cloud-init."""
    said: dict[str, str]
    """The files in /var/said, to which scripts write their messages."""
    judged: dict[str, str]
    """What cloud-init's validator has against `user-data`, the `merged` cloud-config, and
    `network-config`."""


def provisioned(*starts: Start) -> list[Provisioned]:
    """Start one guest as often as asked, each time with another seed."""
    tree = inputs.provisioning()
    folders = sorted({start.seed.resolve().parent for start in starts})
    sandbox = ToolsSandbox(inputs.tools(), readable=[tree, GUEST.parent, *folders])
    words = [f"{start.seed.resolve()}={','.join(start.macs)}" for start in starts]
    output = sandbox.run(
        ["python3", "-B", GUEST, *words], timeout_s=TIMEOUT_S, env=_environment(tree)
    )
    return msgspec.json.decode(_answer(output), type=list[Provisioned])


def verdicts(folder: Path, texts: Sequence[str]) -> list[str | None]:
    """What cloud-init has against each of some user data; None if it takes them."""
    tree = inputs.provisioning()
    given = folder / "texts.json"
    given.write_bytes(msgspec.json.encode(texts))
    sandbox = ToolsSandbox(inputs.tools(), readable=[tree, JUDGE.parent], writable=[folder])
    output = sandbox.run(
        ["python3", "-B", JUDGE, folder, given], timeout_s=TIMEOUT_S, env=_environment(tree)
    )
    return msgspec.json.decode(_answer(output), type=list[str | None])


def _environment(tree: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(tree / "usr/lib/python3/dist-packages"),
        "LD_LIBRARY_PATH": str(tree / "usr/lib/x86_64-linux-gnu"),
    }


def _answer(output: str) -> str:
    _, mark, answer = output.rpartition(ANSWER)
    assert mark, output[-4000:]
    return answer
