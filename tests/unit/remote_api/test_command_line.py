"""What the command says and how it ends, without a host."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remote_api.client.cli.words import in_words_of_the_command
from tests.framework.repository import REPOSITORY


def _mica(*words: str, **environment: str) -> tuple[int, str]:
    """Its exit status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "remote_api.client", *words],
        cwd=REPOSITORY,
        env={**os.environ, "MICA_HOST": "127.0.0.1:1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Datastore small has 86507520 bytes free; 233635840 are needed.",
            "Datastore small has 82.5 MiB free; 222.8 MiB are needed.",
        ),
        ("Image debian needs at least 3221225472 bytes.", "Image debian needs at least 3 GiB."),
        ("It has 512 bytes.", "It has 512 bytes."),
        ("Port 65536 is none.", "Port 65536 is none."),
        (
            "/spec/memory_bytes: It must be at most 17592186044416.",
            "memory_bytes: It must be at most 16 TiB.",
        ),
        ("/spec/disks/0/bus: 'x' is none of sata.", "disks.0.bus: 'x' is none of sata."),
        ("The path is /srv/spec/a.", "The path is /srv/spec/a."),
        (
            "The volume would shrink: set allow_shrink.",
            "The volume would shrink: give --allow-shrink.",
        ),
        ("or mount it here with take_over, and", "or mount it here with --take-over, and"),
        (
            "let it be none (`template: false`).",
            "let it be none (`mica vm set VM template=false`).",
        ),
        (
            "VM off1 is stopped: this can be done only while it is running; start it first.",
            "VM off1 is stopped: this can be done only while it is running;"
            " `mica vm start off1` starts it.",
        ),
        ("id 01a208ac3fc4-000000000001 has no bytes", "id 01a208ac3fc4-000000000001 has no bytes"),
    ],
)
def test_the_host_s_messages_in_the_command_s_words(text: str, words: str) -> None:
    assert in_words_of_the_command(text) == words


CREATE = ("vm", "create", "x", "--datastore", "d")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("host", "power", "shutdown"), "give --yes"),
        (("snapshot", "revert", "web", "s1"), "give --yes"),
        (("vm", "discard-state", "web"), "give --yes"),
        (("vm", "delete", "web", "--with-volumes"), "give --yes"),
        (("vm", "create", "x", "--datastore", "d", "--user", "u", "--password"), "--password-file"),
        (("vm", "create", "x", "--datastore", "d", "--no-nic", "--nic", "n"), "exclude each other"),
        (("snapshot", "create", "x", "s", "--quiesce", "--quiesce-if-possible"), "exclude"),
        ((*CREATE, "--user", "Bad User!"), "--user: "),
        ((*CREATE, "--hostname", "x" * 300), "--hostname: "),
        (
            (*CREATE, "--set", "firmware=efi"),
            "firmware: 'efi' is none of uefi, uefi-secure-boot, bios",
        ),
        ((*CREATE, "--set", "memory=2G"), "memory: It must be an object"),
        ((*CREATE, "--set", "cpus.count=0", "--set", "tpm=1"), "tpm: It must be true or false"),
        (("datastore", "set", "d"), "--warning, --critical or both"),
        (("vm", "show", "Bad Name"), "names are lower-case letters, digits and hyphens"),
        (("vm", "show", "../x"), "is not a name here"),
    ],
)
def test_a_wrong_command_line(words: tuple[str, ...], told: str) -> None:
    status, said = _mica(*words)
    assert (status, told in said) == (2, True), said
    assert not re.search(r"Traceback|Expected `|regex|enum value", said)


@pytest.mark.parametrize("token", [" ", "a b", "a\u00e9", "a\n"])
def test_what_is_no_token(token: str) -> None:
    status, said = _mica("vm", "list", MICA_TOKEN=token)
    assert (status, said.count("\n")) == (2, 1)
    assert "the token is empty or has characters that no token has" in said


def test_an_empty_token_is_said_in_words() -> None:
    status, said = _mica("vm", "list", MICA_TOKEN="")
    assert (status, said.count("\n")) == (2, 1)
    assert "the token is empty" in said


def test_the_time_out_holds_from_the_first_moment() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        began = time.monotonic()
        status, said = _mica(
            *("--timeout", "2", "vm", "list"), MICA_HOST=f"127.0.0.1:{silent.getsockname()[1]}"
        )
        assert (status, "did not answer in time" in said) == (3, True), said
        assert time.monotonic() - began < 2 + 5


def test_a_file_that_can_t_be_read_says_why(tmp_path: Path) -> None:
    for name, told in (("none", "No such file"), ("binary", "not text in UTF-8")):
        if name == "binary":
            (tmp_path / name).write_bytes(b"\xff\xfe\xfd")
        status, said = _mica(
            *("vm", "create", "x", "--datastore", "d", "--user-data", str(tmp_path / name))
        )
        assert (status, told in said) == (2, True), said
