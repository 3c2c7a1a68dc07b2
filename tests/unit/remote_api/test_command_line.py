"""What the command says and how it ends, without a host."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from remote_api.client.cli import main
from remote_api.client.cli.words import in_words_of_the_command
from remote_api.client.errors import MisuseError
from remote_api.client.http.names import check_path, checked_name
from tests.framework.repository import REPOSITORY
from vmkernel.model import Slug


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
            "233635840 bytes are needed, and 86507520 bytes are free on datastore small; grow it.",
            "222.8 MiB are needed, and 82.5 MiB are free on datastore small; grow it.",
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
        ("or set `template: false`.", "or run `mica vm set VM template=false`."),
        (
            "The guest of VM web runs on; retry, or power it off.",
            "The guest of VM web runs on; retry, or power it off with `mica vm stop VM --force`.",
        ),
        (
            "VM off1 is stopped: this can be done only while it is running; start it first.",
            "VM off1 is stopped: this can be done only while it is running;"
            " start it with `mica vm start off1`.",
        ),
        ("id 01a208ac3fc4-000000000001 has no bytes", "id 01a208ac3fc4-000000000001 has no bytes"),
    ],
)
def test_the_host_s_messages_in_the_command_s_words(text: str, words: str) -> None:
    assert in_words_of_the_command(text) == words


NO_HOST = {"MICA_HOST": "127.0.0.1:1"}
CREATE = ("vm", "create", "x", "--datastore", "d")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("host", "power", "shutdown"), "give --yes"),
        (("snapshot", "revert", "web", "s1"), "give --yes"),
        (("vm", "discard-state", "web"), "give --yes"),
        (("volume", "delete", "v"), "give --yes"),
        (("image", "delete", "a", "b"), "give --yes"),
        (("token", "delete", "t"), "give --yes"),
        (("datastore", "delete", "d"), "give --yes"),
        (("snapshot", "delete", "web", "s"), "give --yes"),
        (("query", "GET", "https://example.org/v1"), "give the path alone"),
        (("query", "PUT", "/v1/vms/x", "--data", "[1]"), "it must be a JSON object"),
        (("query", "GET", "/v1/../x"), "is not a valid name"),
        (("vm", "start"), "give the names of VMs, --all or --label"),
        (("vm", "stop", "web", "--all"), "give the names of VMs, --all or --label"),
        (("vm", "list", "-o", "xml"), "'xml' is not one of"),
        (("vm", "list", "--columns", "id", "-o", "json"), "--columns is for tables"),
        (("vm", "create", "x", "--datastore", "d", "--user", "u", "--password"), "--password-file"),
        (("vm", "create", "x", "--datastore", "d", "--no-nic", "--nic", "n"), "mutually exclusive"),
        (
            ("snapshot", "create", "x", "s", "--quiesce", "--quiesce-if-possible"),
            "mutually exclusive",
        ),
        ((*CREATE, "--user", "Bad User!"), "--user: "),
        ((*CREATE, "--hostname", "x" * 300), "--hostname: "),
        (
            (*CREATE, "--set", "firmware=efi"),
            "firmware: 'efi' is not allowed; use one of uefi, uefi-secure-boot, bios",
        ),
        ((*CREATE, "--set", "memory=2G"), "memory: It must be an object"),
        ((*CREATE, "--set", "cpus.count=0", "--set", "tpm=1"), "tpm: It must be true or false"),
        (("datastore", "set", "d"), "--warning, --critical or both"),
    ],
)
def test_a_wrong_command_line(words: tuple[str, ...], told: str) -> None:
    status, said = _mica(*words)
    assert (status, told in said) == (2, True), said
    assert not re.search(r"Traceback|Expected `|regex|enum value", said)


WRONG_NAMES = (
    "Web",
    "Bad Name",
    "../x",
    "web?x=1",
    "w\u00e9b",
    "web-",
    "",
    "x" * 64,
    "a\n",
)


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize(
    "words",
    [
        ("vm", "show", "{}"),
        ("vm", "create", "{}", "--datastore", "d"),
        ("vm", "create", "x", "--datastore", "{}"),
        ("vm", "create", "x", "--datastore", "d", "--disk", "{}:sata"),
        ("vm", "clone", "x", "{}"),
        ("volume", "create", "x", "--size", "1M", "--datastore", "d", "--image", "{}"),
        ("snapshot", "create", "x", "{}"),
        ("token", "create", "{}", "--role", "admin"),
        ("datastore", "rename", "x", "{}"),
    ],
)
def test_one_rule_for_all_names(words: tuple[str, ...], name: str) -> None:
    """Nothing is sent, and the exit status is that of a wrong command line."""
    result = CliRunner().invoke(main, [word.format(name) for word in words], env=NO_HOST)
    assert result.exit_code == 2, result.stderr
    assert "is not a valid name: use lower-case letters (a-z), digits and hyphens" in result.stderr


def test_a_name_that_is_near_is_suggested() -> None:
    for name, near in (("Web", "web"), ("Bad Name", "bad-name"), ("web_1.local", "web-1-local")):
        with pytest.raises(MisuseError, match=f"such as {near}$"):
            checked_name(name)
    with pytest.raises(MisuseError, match=r"63 characters$"):
        checked_name("\u00e9")


@given(st.text(max_size=70) | st.from_regex(r"[a-zA-Z0-9-]{0,66}"))
def test_the_rule_is_the_host_s(name: str) -> None:
    """A name passes here exactly if the API takes it."""
    try:
        msgspec.convert(name, Slug)
    except msgspec.ValidationError:
        with pytest.raises(MisuseError):
            checked_name(name)
    else:
        assert checked_name(name) == name


def _parameters(command: click.Command, words: str) -> Iterator[tuple[str, click.Parameter]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _parameters(inner, f"{words} {name}")
    for parameter in command.params:
        yield words, parameter


NOT_NAMES = {
    *("mica webhook create --url", "mica webhook create --secret", "mica webhook set --url"),
    *("mica webhook create --type", "mica webhook create --subject", "mica webhook create -l"),
    *("mica webhook set --secret", "mica webhook create --description"),
    *("mica events --type", "mica events --subject", "mica events -l"),
    *("mica context show NAME", "mica context rename NAME", "mica context rename NEW_NAME"),
    *("mica query PATH", "mica query --data", "mica query --if-match"),
    *("mica context forget NAME", "mica context add NAME", "mica context use NAME"),
    *("mica context add HOST", "mica claim HOST", "mica --host", "mica claim --name"),
    *("mica vm create --name", "mica vm clone --name", "mica vm create --cpu-model"),
    *("mica vm create --cmdline", "mica vm create --label", "mica vm create --set"),
    *("mica vm set SETTINGS", "mica vm patch PATCH", "mica vm keys KEYS", "mica vm keys --text"),
    *("mica vm create --user", "mica vm create --hostname"),
    *("mica vm detach DISK", "mica vm attach --key", "mica vm insert --drive"),
    *("mica vm eject --drive", "mica vm add-nic --key", "mica vm add-nic --mac"),
    *("mica vm remove-nic NIC", "mica vnc --viewer", "mica vm vnc --viewer"),
    *("mica image upload --sha256", "mica image pull URL", "mica image pull --sha256"),
    *("mica image uploads --delete", "mica events --after", "mica operation show OPERATION_ID"),
    *("mica operation wait OPERATION_ID", "mica operation cancel OPERATION_ID"),
    *("mica vm start -l", "mica vm stop -l", "mica vm reset -l"),
    *("mica vm pause -l", "mica vm resume -l", "mica vm suspend -l"),
    *("mica vm discard-state -l", "mica vm update-secure-boot -l"),
    *("mica vm delete -l",),
    *("mica claim --code", "mica claim --fingerprint", "mica context add --fingerprint"),
    *("mica context add --token", "mica token create --description"),
    *("mica token create --expires-at", "mica snapshot create --description"),
    *("mica serve --listen", "mica disk show DISK_ID", "mica disk wipe DISK_ID"),
    *("mica disk wipe --serial", "mica datastore create --disk", "mica datastore adopt --disk"),
    *("mica datastore create --spare", "mica datastore create --wipe"),
    *("mica datastore create --nfs", "mica datastore adopt --nfs", "mica datastore create --path"),
    *("mica datastore adopt --path", "mica datastore add-disk DISK"),
    *("mica datastore add-disk --wipe", "mica datastore replace-disk OLD"),
    *("mica datastore replace-disk NEW", "mica datastore replace-disk --wipe"),
}
"""Free text, addresses, ids that the host or the hardware gives, keys of devices."""


LAYOUT = {"--columns", "--sort"}
"""Of every list: titles of its columns."""


def test_every_text_on_the_command_line_is_a_name_or_known_to_be_none() -> None:
    found = set()
    for words, parameter in _parameters(main, "mica"):
        if parameter.opts[0] in LAYOUT or (parameter.opts[0] == "--host" and words != "mica"):
            continue
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        if type(parameter.type) is type(click.STRING) and not flag:
            option = parameter.opts[0]
            shown = option if option.startswith("-") else option.upper()
            found.add(f"{words} {shown}")
    assert found == NOT_NAMES


def test_a_path_of_the_api_is_made_of_names() -> None:
    for path in ("/v1/vms/web/start", "/v1/operations/Ab_-1/cancel", "/v1", "/metrics"):
        check_path(path)
    for path in ("/v1/vms/../x", "/v1/vms/Web", "/v1/vms//x", "/v1/vms/a?b", "/v1/operations/a.b"):
        with pytest.raises(MisuseError):
            check_path(path)


@pytest.mark.parametrize("token", [" ", "a b", "a\u00e9", "a\n"])
def test_what_is_no_token(token: str) -> None:
    status, said = _mica("vm", "list", MICA_TOKEN=token)
    assert (status, said.count("\n")) == (2, 1)
    assert "the token is empty or contains invalid characters" in said


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
