"""The files of a NoCloud seed (cloud-init's documentation, "NoCloud").

meta-data        JSON, which is YAML: the instance's id and name, and what the spec adds
user-data        the short cuts (user, keys, password) as `#cloud-config`, the spec's own data, or
                 both as MIME parts; where both say something, the spec's own data win, and
                 lists are joined. The first user is asked for by name (`users: [default]`):
                 own data that list other users would else leave the short cuts without one
network-config   as the spec has it

The instance's id is the VM's UUID: cloud-init does its work once for each, and a clone is another.
"""

from __future__ import annotations

import re
from email import message_from_string
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from typing import Any

import msgspec

from vmkernel.model import CloudInitSpec, MicaError, UserDataFormat
from vmkernel.vm.spec.cloud_init.ssh_key import ssh_key_fault
from vmkernel.vm.spec.cloud_init.user_data import kind_of, user_data_fault
from vmkernel.vm.spec.cloud_init.yaml_text import yaml_fault

__all__ = ["check_cloud_init", "seed_files"]

_OURS = ("instance-id", "local-hostname", "instance_id", "local_hostname")
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
_VERSION = re.compile(r"(?:^|[\s{,])[\"']?version[\"']?\s*:\s*[12](?![\w.])")
_DISABLED = re.compile(r"(?:^|[\s{,])[\"']?config[\"']?\s*:\s*[\"']?disabled\b")
_KNOWN_HASH = re.compile(r"\$(1|2a|2y|5|6)\$")
"""What cloud-init accepts as a hash when it sets the password of a user whom the seed does not name
(cc_set_passwords); any other would become the password itself."""
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""Of a host name, as systemd's hostname_is_valid takes it, at a DNS label's length."""
_USER = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?")
"""What useradd takes on Debian or Fedora; a name of digits alone is a number to other programs."""


def check_cloud_init(spec: CloudInitSpec) -> None:
    """Raise MicaError, with the field, for what no guest could use.

    A guest that can't read its seed reports that in its own log at best, and starts without name,
    network or login. Everything that can be checked here without reading YAML is therefore refused.
    """
    _check_names(spec)
    for index, key in enumerate(spec.ssh_keys):
        if (fault := ssh_key_fault(key)) is not None:
            raise _wrong(f"ssh_keys/{index}", fault)
    if spec.format is UserDataFormat.ANY:
        _refuse_short_cuts(spec)
    elif spec.user_data is not None and (fault := user_data_fault(spec.user_data)) is not None:
        raise _wrong("user_data", fault)
    if spec.network_config is not None:
        _check_network_config(spec.network_config)
    hashed = spec.password_hash
    if hashed is not None and spec.user is None and not _KNOWN_HASH.match(hashed):
        raise _wrong(
            "password_hash",
            "Without `user`, cloud-init knows only hashes that begin with $1$, $2a$, $2y$, $5$"
            " or $6$: give `user` too, or a hash of `openssl passwd -6`.",
        )
    for key in spec.meta_data:
        if key in _OURS:
            raise _wrong(f"meta_data/{key}", f"{key} is set by the host; see `hostname`.")


def _check_names(spec: CloudInitSpec) -> None:
    if spec.hostname is not None:
        for label in spec.hostname.split("."):
            if not _LABEL.fullmatch(label):
                raise _wrong(
                    "hostname",
                    f"{label or 'An empty label'!r} can't be part of a host name: labels between"
                    " dots have 1 to 63 letters, digits, hyphens or underscores, and neither begin"
                    " nor end with a hyphen.",
                )
    if spec.user is not None and (not _USER.fullmatch(spec.user) or spec.user.isdigit()):
        raise _wrong(
            "user",
            "A user name has at most 32 letters, digits, dots, hyphens, underscores or @, begins"
            " with a letter, a digit or an underscore, and is not a number.",
        )


def _refuse_short_cuts(spec: CloudInitSpec) -> None:
    """User data that aren't cloud-init's can't be joined with ours."""
    for name in ("user", "password_hash", "ssh_keys"):
        if getattr(spec, name):
            raise _wrong(
                name,
                "With `format: any`, user data reach the guest as they are; leave this out and put"
                " it into the user data.",
            )


def _check_network_config(text: str) -> None:
    if (fault := yaml_fault(text)) is not None:
        raise _wrong("network_config", fault)
    if not _VERSION.search(text) and not _DISABLED.search(text):
        raise _wrong("network_config", "It must say `version: 1` or `version: 2`.")


def _wrong(field: str, detail: str) -> MicaError:
    return MicaError.field(f"/spec/cloud_init/{field}", detail)


def seed_files(spec: CloudInitSpec, *, uuid: str, vm_id: str) -> dict[str, bytes]:
    """The files of a VM's seed by their names."""
    meta = {
        **spec.meta_data,
        "instance-id": uuid,
        "local-hostname": spec.hostname or vm_id,
    }
    files = {"meta-data": _json(meta), "user-data": _user_data(spec).encode()}
    if spec.network_config is not None:
        files["network-config"] = spec.network_config.encode()
    return files


def _user_data(spec: CloudInitSpec) -> str:
    own = spec.user_data
    if spec.format is UserDataFormat.ANY:
        return own or ""
    short = _short_cuts(spec)
    if own is not None and not short:
        return own
    config = f"#cloud-config\n{_json(short).decode()}"
    if own is None:
        return config
    whole = MIMEMultipart(boundary=_boundary(own, config))
    whole.attach(_part(kind_of(own) or "plain", own))
    part = _part("cloud-config", config)
    part["Merge-Type"] = _MERGE
    whole.attach(part)
    return whole.as_string()


def _short_cuts(spec: CloudInitSpec) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if spec.user is not None:
        config["user"] = {"name": spec.user}
        if spec.password_hash is not None:
            config["user"] |= {"lock_passwd": False, "hashed_passwd": spec.password_hash}
    elif spec.password_hash is not None:
        config |= {"password": spec.password_hash, "chpasswd": {"expire": False}}
    if spec.ssh_keys:
        config["ssh_authorized_keys"] = list(spec.ssh_keys)
    if config:
        config["users"] = ["default"]
    return config


def _part(kind: str, text: str) -> Message:
    if kind == "mixed":
        return message_from_string(text)
    part = MIMEBase("text", kind, charset="utf-8")
    part.set_payload(text, "utf-8")
    return part


def _boundary(*texts: str) -> str:
    """A line that none of the texts holds; always the same for the same texts."""
    boundary = "===============mica"
    while any(boundary in text for text in texts):
        boundary += "="
    return boundary


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
