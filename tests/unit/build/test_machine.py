"""Reading the boot story, keeping the stick's state, choosing the accelerator."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import pytest

from appliance_build.assemble.stick import STATE_BYTES
from appliance_build.machine.boot_story import BootStory
from appliance_build.machine.kvm_probe import Accelerator, choose_accelerator
from appliance_build.machine.session import NEXT_COMMANDS
from appliance_build.machine.stick_copy import STATE_OFFSET, prepare_stick
from remote_api.client.cli import root as commands

STORY = (
    b"\x1b[2J\x1b[01;01HBdsDxe: starting Boot0001\r\n"
    b"mica: kernel up after 2.6 s, starting\r\n"
    b"mica: system image in place after 2.8 s, starting systemd\r\n"
    b"Mica 0.1.0 is ready\r\nAPI: https://10.0.2.15/\r\n"
    b"TLS fingerprint (SHA-256): 00112233 44556677\r\nClaim code: ABCD-EFGH\r\n"
)


def test_the_status_is_read_in_any_pieces() -> None:
    for size in (1, 7, len(STORY)):
        story = BootStory()
        for start in range(0, len(STORY), size):
            story.feed(STORY[start : start + size])
        assert story.status.complete()
        assert story.status.address == "https://10.0.2.15/"
        assert story.status.fingerprint == "00112233 44556677"
        assert story.status.claim_code == "ABCD-EFGH"
        assert not story.status.claimed


def test_the_commands_to_try_are_the_client_s() -> None:
    for words in NEXT_COMMANDS:
        group, _, name = words.partition(" ")
        found = commands.main.commands[group]
        assert isinstance(found, click.Group)
        assert name in found.commands


def test_stages_and_lines() -> None:
    story = BootStory()
    assert story.stage == "the firmware"
    assert story.feed(STORY[:40]) == ["BdsDxe: starting Boot0001"]
    assert story.stage == "the loader and the kernel"
    story.feed(STORY[40:])
    assert story.stage == "the system's services"


@pytest.mark.parametrize(
    "line", ["mica: START FAILED in stage 'modules': x", "Kernel panic - not syncing: y"]
)
def test_failures_are_seen(line: str) -> None:
    story = BootStory()
    story.feed(line.encode() + b"\n")
    assert story.status.failure == line


def test_a_claimed_machine_shows_no_code() -> None:
    story = BootStory()
    story.feed(b"Mica 1 is ready\nTLS fingerprint (SHA-256): 00\nClaimed: yes\n")
    assert story.status.complete()
    assert story.status.claim_code is None


def _image(path: Path, filler: bytes) -> Path:
    with path.open("wb") as file:
        file.write(filler)
        file.truncate(STATE_OFFSET + STATE_BYTES + 4096)
    return path


def test_a_new_image_keeps_the_state(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stick = prepare_stick(_image(tmp_path / "one", b"one"), folder, fresh=False)
    with stick.open("r+b") as file:
        file.seek(STATE_OFFSET)
        file.write(b"state")
    assert prepare_stick(tmp_path / "one", folder, fresh=False) == stick
    stick = prepare_stick(_image(tmp_path / "two", b"two"), folder, fresh=False)
    with stick.open("rb") as file:
        assert file.read(3) == b"two"
        file.seek(STATE_OFFSET)
        assert file.read(5) == b"state"
    stick = prepare_stick(tmp_path / "two", folder, fresh=True)
    with stick.open("rb") as file:
        file.seek(STATE_OFFSET)
        assert file.read(5) == b"\0" * 5


def _choose(tmp_path: Path, program: str, *, wish: str = "") -> Accelerator:
    device = tmp_path / "kvm"
    device.touch()
    argv = [sys.executable, "-c", program]
    chosen, why = choose_accelerator(
        argv, {}, device, device, wish=wish, device=device, timeout_s=1.0
    )
    assert why
    return chosen


SPEAKS = "import time; print('BdsDxe: failed to load Boot0001', flush=True); time.sleep(60)"


def test_kvm_is_taken_where_a_guests_firmware_gets_through(tmp_path: Path) -> None:
    assert _choose(tmp_path, SPEAKS) is Accelerator.KVM


def test_a_guest_that_fails_or_hangs_means_emulation(tmp_path: Path) -> None:
    assert _choose(tmp_path, "raise SystemExit(1)") is Accelerator.TCG
    assert _choose(tmp_path, "print('extra data')") is Accelerator.TCG
    assert _choose(tmp_path, "import time; time.sleep(60)") is Accelerator.TCG


def test_the_wish_decides_without_a_guest(tmp_path: Path) -> None:
    assert _choose(tmp_path, SPEAKS, wish="tcg") is Accelerator.TCG


def test_no_device_means_emulation(tmp_path: Path) -> None:
    none = tmp_path / "none"
    chosen, why = choose_accelerator([], {}, none, none, wish="", device=none)
    assert chosen is Accelerator.TCG
    assert os.fspath(tmp_path / "none") in why
