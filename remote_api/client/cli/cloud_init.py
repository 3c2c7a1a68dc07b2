"""cloud-init settings for the first start of a guest, as options of `mica vm create`."""

from __future__ import annotations

import getpass
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from remote_api.client.cli import output
from remote_api.client.cli.parameters import choice_of
from remote_api.schema.violations import examined
from vmkernel.model import CloudInitSpec, UserDataFormat

__all__ = ["cloud_init_of", "cloud_init_options"]

_TEXT_FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def cloud_init_options(command: _Command) -> _Command:
    """Add the options; `cloud_init_of` reads what was given."""
    for option in (
        click.option(
            "--network-config",
            type=_TEXT_FILE,
            metavar="FILE",
            help="Network configuration for cloud-init, version 1 or 2.",
        ),
        click.option(
            "--user-data-format",
            type=choice_of(UserDataFormat),
            help="Format of --user-data; `any` for Talos, Ignition or cloudbase-init,"
            " which is not checked.",
        ),
        click.option(
            "--user-data",
            type=_TEXT_FILE,
            metavar="FILE",
            help="User data for cloud-init: #cloud-config, a script or another format that"
            " cloud-init knows; `-`"
            " for standard input.",
        ),
        click.option(
            "--password-file",
            type=_TEXT_FILE,
            metavar="FILE",
            help="Like --password, but read it from the first line of FILE.",
        ),
        click.option(
            "--password",
            is_flag=True,
            help="Ask for a password for the first user. Only its hash is sent.",
        ),
        click.option(
            "--ssh-key",
            "ssh_keys",
            type=_TEXT_FILE,
            multiple=True,
            metavar="FILE",
            help="SSH public keys of the first user, such as ~/.ssh/id_ed25519.pub. Repeatable.",
        ),
        click.option("--user", metavar="NAME", help="Name of the guest's first user (cloud-init)."),
        click.option(
            "--hostname",
            metavar="NAME",
            help="Host name of the guest (cloud-init; default: the VM's name).",
        ),
    ):
        command = option(command)
    return command


def cloud_init_of(given: dict[str, Any]) -> CloudInitSpec | None:
    """The seed that the options ask for; None if none of them was given."""
    from remote_api.client.cli.password_hash import hash_password

    password = None
    if given["password"]:
        password = _asked_password()
    elif given["password_file"] is not None:
        password = _text(given["password_file"], "--password-file").partition("\n")[0].rstrip("\r")
        if not password:
            raise click.UsageError("--password-file: the first line is empty")
    fields = {
        "hostname": given["hostname"],
        "user": given["user"],
        "password_hash": hash_password(password) if password else None,
        "ssh_keys": [key for path in given["ssh_keys"] for key in _keys(path)],
        "format": given["user_data_format"],
        "user_data": _optional(given["user_data"], "--user-data"),
        "network_config": _optional(given["network_config"], "--network-config"),
    }
    fields = {name: value for name, value in fields.items() if value}
    if not fields:
        return None
    _, wrong = examined(fields, CloudInitSpec)
    if wrong:
        raise click.UsageError(" ".join(f"{_option_of(e.pointer)}: {e.detail}" for e in wrong))
    return msgspec.convert(fields, CloudInitSpec)


def _option_of(pointer: str) -> str:
    """The option that a field of the seed comes from."""
    name = pointer.split("/")[1].replace("_", "-")
    return "--" + {"ssh-keys": "ssh-key", "password-hash": "password"}.get(name, name)


def _asked_password() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", getpass.GetPassWarning)  # input may be piped in
        try:
            return output.ask_secret("Password")
        except click.Abort as error:
            if isinstance(error.__context__, EOFError):
                raise click.UsageError(
                    "--password needs a terminal to ask; use --password-file"
                ) from error
            raise


def _optional(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    text = _text(path, option)
    if not text:
        raise click.UsageError(f"{option}: {path} is empty")
    return text


def _keys(path: Path) -> list[str]:
    text = _text(path, "--ssh-key")
    if "PRIVATE KEY" in text:
        raise click.UsageError(f"--ssh-key: {path} is a private key; give the .pub file")
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or any(len(key.split()) < 2 for key in keys):
        raise click.UsageError(f"--ssh-key: {path} contains no public key")
    return keys


def _text(path: Path, option: str) -> str:
    """A file's text, without the mark that some editors put before it."""
    try:
        with click.open_file(str(path), "rb") as file:
            data: bytes = file.read()
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise click.UsageError(f"{option}: can't read {path}: {reason}") from error
