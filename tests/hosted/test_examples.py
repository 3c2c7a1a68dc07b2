"""Every example of the READMEs and of --help, run as it stands, or at least read as the command
reads it.

`INSTEAD` says what a line means on a test's host, which has directories for disks and no server to
pull from; `ONLY_READ` says why a line can't run there. Each must match a line: an example that
changed is looked at again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from remote_api.client.cli.root import main
from tests.framework import inputs
from tests.framework.examples import blocks, checked, command_lines, words_of
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica, hosted_mica, unclaimed_mica
from tests.framework.repository import REPOSITORY
from tests.framework.web_server import web_server
from vmkernel.model import DatastoreKind, DatastoreSpec

README = REPOSITORY / "README.md"
API_README = REPOSITORY / "remote_api/README.md"
LINE_S = 300.0
GUEST = "--firmware bios --kernel guest-kernel --initrd guest-initrd --cmdline console=ttyS0"

INSTEAD = {
    "mica datastore create main --disk SERIAL --wipe SERIAL": (
        "mica datastore create main --path {folder}/main"
    ),
    "mica image pull cloud https://example.org/disk.qcow2 --sha256 HEX --datastore main": (
        "mica image pull cloud {web}/plain/disk.qcow2 --sha256 {sha256} --datastore main"
    ),
}
"""What a line is on a host without disks of its own and without a net."""

MORE = {"mica vm create web ": GUEST}
"""Words that are added to a line: a guest that starts within seconds."""

ONLY_READ = {
    "mica datastore create safe --raid": "needs disks",
    "mica datastore create filer --nfs": "needs an NFS server and root",
    "mica vnc web --viewer": "needs a screen: test_viewers.py",
    "mica top --watch": "ends with Ctrl-C",
    "mica claim 192.0.2.10": "the host is claimed before",
}

GIVEN = {
    "mica console web": "\x1d",
    "mica vm create db ": "a long password\na long password\n",
}
"""What is typed."""


def _readme_lines() -> list[str]:
    lines = [line for block in blocks(README) for line in command_lines(block)]
    return [line for line in lines if line.startswith("mica ")]


def _of(table: dict[str, str], line: str) -> str | None:
    return next((value for start, value in table.items() if line.startswith(start)), None)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedMica]:
    """A host for the examples, with OVMF, and nothing on it."""
    share = inputs.tools() / "usr/share"
    folder = tmp_path_factory.mktemp("e")
    with hosted_mica(folder, "--pull-from-loopback", "--qemu-dir", str(share)) as host:
        yield host


def test_every_line_of_the_readme_is_read_as_it_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "debian.iso").touch()
    lines = _readme_lines()
    assert len(lines) > 30
    for line in lines:
        checked(main, words_of(line))
    for table in (INSTEAD, MORE, ONLY_READ, GIVEN):
        for start in table:
            assert any(line.startswith(start) for line in lines), f"{start!r} is in no README"


def test_commands_that_texts_name_exist() -> None:
    """`mica …` in backticks, in the READMEs and in every command's help."""
    texts = [path.read_text() for path in (README, API_README, REPOSITORY / "vmkernel/README.md")]
    texts += [text for command, _ in _commands(main, ["mica"]) for text in _texts(command)]
    named = {found for text in texts for found in re.findall(r"`(mica [a-z][^`]*)`", text)}
    assert len(named) > 5
    for text in named:
        command: click.Command | None = main
        for word in text.split()[1:]:
            if not isinstance(command, click.Group) or not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            command = command.commands.get(word)
            assert command is not None, f"`{text}` names no command"


def _commands(command: click.Command, path: list[str]) -> Iterator[tuple[click.Command, list[str]]]:
    yield command, path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _commands(below, [*path, name])


def _texts(command: click.Command) -> list[str]:
    options = [getattr(parameter, "help", None) for parameter in command.params]
    return [text for text in (command.help, command.epilog, *options) if text]


def test_the_readme_from_top_to_bottom(examples: HostedMica, tmp_path: Path) -> None:
    (tmp_path / "debian.iso").write_bytes(bytes(16 * 2048) + b"\x01CD001\x01" + bytes(18425))
    (tmp_path / ".ssh").mkdir()
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKpqC8kRrWbmJmcNrTjtGCZlVwrcpqEvGlIzjnMBe8wD ann\n"
    (tmp_path / ".ssh/id_ed25519.pub").write_text(key)
    (tmp_path / "setup.yaml").write_text("#cloud-config\npackages: [htop]\n")
    disk = _qcow2(examples, tmp_path)
    for name in ("main", "other"):
        (tmp_path / name).mkdir()
    with examples.client() as mica, web_server({"disk.qcow2": disk}) as web:
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(tmp_path / "other"))
        mica.wait(mica.create_datastore("other", spec))
        values = {"folder": str(tmp_path), "web": f"http://{web.address}", "sha256": _sha256(disk)}
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
            "MICA_HOST": examples.address,
            "MICA_TOKEN": str(examples.token),
            "MICA_FINGERPRINT": examples.fingerprint,
            "PATH": f"{_bin(tmp_path)}:{os.environ['PATH']}",
        }
        for line in _readme_lines():
            if _of(ONLY_READ, line):
                continue
            shown = line
            if (instead := _of(INSTEAD, line)) is not None:
                line = instead.format(**values)
            if (more := _of(MORE, line)) is not None:
                line = f"{line} {more}"
            _run(line, shown, tmp_path, environment, _of(GIVEN, line) or "")
            if line.startswith("mica datastore create main"):
                upload_guest(mica, "guest-")


def _run(line: str, shown: str, folder: Path, environment: dict[str, str], given: str) -> str:
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=LINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
    return done.stdout


def _bin(folder: Path) -> Path:
    """A folder with the command `mica` in it."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    (place / "mica").write_text(f'#!/bin/sh\nexec {sys.executable} -m remote_api.client "$@"\n')
    (place / "mica").chmod(0o755)
    return place


def _qcow2(host: HostedMica, folder: Path) -> bytes:
    file = folder / "disk.qcow2"
    program = str(host.folder / "qemu-img")
    subprocess.run([program, "create", "-q", "-f", "qcow2", str(file), "64M"], check=True)
    return file.read_bytes()


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_the_fields_that_help_names(examples: HostedMica, tmp_path: Path) -> None:
    """The PATH=VALUEs in the help of `vm set` and `vm create`, each by the command it is in."""
    with examples.client() as mica:
        folder = tmp_path / "d"
        folder.mkdir()
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(folder))
        mica.wait(mica.create_datastore("fields", spec))
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "MICA_HOST": examples.address,
        "MICA_TOKEN": str(examples.token),
        "MICA_FINGERPRINT": examples.fingerprint,
        "PATH": f"{_bin(tmp_path)}:{os.environ['PATH']}",
    }

    def run(line: str) -> str:
        return _run(line, line, tmp_path, environment, "")

    setting = r"[a-z_]+(?:\.[a-z0-9_]+)*=(?:'[^']*'|[^\s;,]+[^\s;,.])"
    for command, path in _commands(main, ["mica"]):
        for text in _texts(command):
            found = re.findall(setting, text)
            if not found:
                continue
            name = "-".join(path[1:])
            made = f"mica vm create {name} --datastore fields --new-disk 64M"
            assert path in (["mica", "vm", "set"], ["mica", "vm", "create"]), path
            if path[-1] == "create":
                run(" ".join([made, *(f"--set {each}" for each in found)]))
            else:
                assert len(found) > 5, found
                run(made)
                for each in found:
                    run(f"mica vm set {name} {each}")
                run(
                    f"mica vm create {name}-2 --datastore fields --new-disk 64M "
                    + " ".join(f"--set {each}" for each in found)
                )


def _curl_script(block: str, where: str, code: str) -> str:
    """The block as one script for bash that ends at its first failure.

    What a person would fill in (the token, a backup's id) is taken from what was answered.
    """
    script = [
        "set -eu -o pipefail",
        'curl() { command curl --fail-with-body --max-time 90 "$@"; }',
        'mica() { PYTHONPATH="$REPOSITORY" "$PYTHON" -m remote_api.client "$@"; }',
        'answered() { sed "s/.*\\"$1\\":\\"\\([^\\"]*\\)\\".*/\\1/" "$2"; }',
    ]
    for line in command_lines(block):
        text = line.replace("HOST:443", where).replace("HOST", where)
        text = text.replace("ABCDE-FGHJK", code).replace("/backups/BACKUP/", "/backups/$BACKUP/")
        if "mica_admin_…" in text:
            text = text.replace("'", '\\"').replace('\\"header', '"header', 1)
            text = text.replace('mica_admin_…"\\"', '$token\\""').replace('= "A', '= \\"A')
        if text.startswith("mc -N "):
            text += " --max-time 2 || [ $? = 28 ]"  # it goes on for ever
        if "/v1/claim" in line:
            text += " | tee claimed; token=$(answered secret claimed)"
        if line.endswith("""/backups --json '{"checkpoint": "monday"}'"""):
            text += " | tee backup; BACKUP=$(answered id backup)"
        script.append(text)
        if "/v1/claim" in line:
            script.append('MICA_TOKEN=$token mica datastore create main --path "$FOLDER/store"')
    return "\n".join(script)


def test_the_api_by_curl(tmp_path: Path) -> None:
    """remote_api/README.md's block, in one shell."""
    (block,) = [text for text in blocks(API_README) if "curl" in text]
    share = inputs.tools() / "usr/share"
    (tmp_path / "store").mkdir()
    (tmp_path / "a.iso").write_bytes(bytes(16 * 2048) + b"\x01CD001\x01" + bytes(18425))
    with unclaimed_mica(tmp_path, "--qemu-dir", str(share)) as host:
        script = _curl_script(block, host.address.removeprefix("https://"), host.claim_code)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "REPOSITORY": str(REPOSITORY),
                "PYTHON": sys.executable,
                "FOLDER": str(tmp_path),
                "MICA_HOST": host.address,
                "MICA_FINGERPRINT": host.fingerprint,
            },
            capture_output=True,
            text=True,
            timeout=LINE_S,
            check=False,
        )
    assert done.returncode == 0, script + done.stdout + done.stderr
    assert '"secret"' in done.stdout
