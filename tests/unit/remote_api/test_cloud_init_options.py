"""`mica vm create`'s options for cloud-init: what they read, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from remote_api.client.cli.cloud_init import cloud_init_of, cloud_init_options
from remote_api.client.cli.password_hash import hash_password
from vmkernel.model import CloudInitSpec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtBbVZ6l0X2T0m9k1o5v1cYJw0m3l6bqQ7n9yQXh2aB ann@x"


def _asked(*words: str, typed: str | None = None) -> tuple[CloudInitSpec | None, Result]:
    seen: list[CloudInitSpec | None] = []

    @click.command()
    @cloud_init_options
    def command(**given: Any) -> None:
        seen.append(cloud_init_of(given))

    result = CliRunner().invoke(command, words, input=typed)
    return (seen[0] if seen else None), result


def test_nothing_asked_for_is_no_seed() -> None:
    assert _asked()[0] is None


def test_files_are_read(tmp_path: Path) -> None:
    keys, data = tmp_path / "keys.pub", tmp_path / "user-data"
    keys.write_text(f"# mine\n\n{KEY}\n{KEY} too\r\n")
    data.write_bytes(b"\xef\xbb\xbf#cloud-config\n{}\n")
    spec, _ = _asked("--ssh-key", str(keys), "--user-data", str(data), "--hostname", "db")
    assert spec == CloudInitSpec(
        hostname="db", ssh_keys=(KEY, f"{KEY} too"), user_data="#cloud-config\n{}\n"
    )


def test_a_password_is_hashed_here(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\nrest\n")
    for words, typed in (
        (("--password-file", str(file)), None),
        (("--password-file", "-"), "correct horse\n"),
        (("--password",), "correct horse\ncorrect horse\n"),
    ):
        spec, result = _asked("--user", "ann", *words, typed=typed)
        assert spec is not None, result.output
        hashed = spec.password_hash or ""
        assert hash_password("correct horse", hashed.split("$")[2]) == hashed
        assert "horse" not in result.output


@pytest.mark.parametrize(
    ("option", "content", "says"),
    [
        ("--ssh-key", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "private key"),
        ("--ssh-key", "# none\n", "contains no public key"),
        ("--ssh-key", "hello\n", "contains no public key"),
        ("--user-data", "", "is empty"),
        ("--user-data", "\udcff", "can't read"),
        ("--password-file", "\nsecret\n", "first line is empty"),
    ],
)
def test_what_can_t_be_meant_is_refused(
    tmp_path: Path, option: str, content: str, says: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content.encode(errors="surrogateescape"))
    _, result = _asked(option, str(file))
    assert result.exit_code == 2
    assert says in result.output
