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

from vmkernel.model import CloudInitSpec, MicaError

__all__ = ["check_cloud_init", "seed_files"]

_TYPES = (
    ("#cloud-config-archive", "cloud-config-archive"),
    ("#cloud-config-jsonp", "cloud-config-jsonp"),
    ("#cloud-config", "cloud-config"),
    ("#include-once", "x-include-once-url"),
    ("#include", "x-include-url"),
    ("#cloud-boothook", "cloud-boothook"),
    ("#part-handler", "part-handler"),
    ("## template: jinja", "jinja2"),
    ("#!", "x-shellscript"),
)
"""First words of user data and what they mean (cloudinit/handlers/__init__.py), longest first."""
_MIME = re.compile(r"(Content-Type: multipart/|MIME-Version: )", re.IGNORECASE)
_OURS = ("instance-id", "local-hostname", "instance_id", "local_hostname")
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
_VERSION = re.compile(r"(?:^|[\s{,])[\"']?version[\"']?\s*:\s*[12](?![\w.])")
_DISABLED = re.compile(r"(?:^|[\s{,])[\"']?config[\"']?\s*:\s*[\"']?disabled\b")
_TAB = re.compile(r"^\t", re.MULTILINE)
_NO_CONTENT = re.compile(r"\s*(#.*|---|%.*)?")
_KNOWN_HASH = re.compile(r"\$(1|2a|2y|5|6)\$")
"""What cloud-init takes for a hash where it sets the password of a user whom the seed does not name
(cc_set_passwords); any other would become the password itself."""
_MEDIA = re.compile(r"[\t\n\r -~\x85\xa0-\ud7ff\ue000-\U0010ffff]*")


def check_cloud_init(spec: CloudInitSpec) -> None:
    """MicaError, with the field, for what no guest could take.

    A guest that can't read its seed says so in its own log at best, and comes up without name,
    network or login. What can be seen from here without reading YAML is therefore refused.
    """
    for name in ("user_data", "network_config"):
        text = getattr(spec, name)
        if text is not None and not _MEDIA.fullmatch(text):
            raise _wrong(name, "It holds characters that YAML does not allow.")
    if spec.user_data is not None:
        _check_user_data(spec.user_data)
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


def _check_user_data(text: str) -> None:
    kind = _kind(text)
    if kind == "jinja2":
        _, _, text = text.partition("\n")
        kind = _kind(text)
    if kind is None:
        raise _wrong(
            "user_data",
            "User data must begin with `#cloud-config`, `#!`, or another mark of cloud-init's"
            " (after `## template: jinja`, its second line must); others are ignored by guests.",
        )
    if kind == "cloud-config":
        _check_yaml("user_data", text)


def _check_network_config(text: str) -> None:
    _check_yaml("network_config", text)
    if not _VERSION.search(text) and not _DISABLED.search(text):
        raise _wrong("network_config", "It must say `version: 1` or `version: 2`.")


def _check_yaml(name: str, text: str) -> None:
    """What is not YAML for sure, or is no mapping."""
    if (tab := _TAB.search(text)) is not None:
        line = text.count("\n", 0, tab.start()) + 1
        raise _wrong(
            name, f"Line {line} begins with a tab, which YAML does not allow: indent with spaces."
        )
    first = next((line for line in text.splitlines() if not _NO_CONTENT.fullmatch(line)), "")
    if first.startswith(("- ", "[")):
        raise _wrong(name, "It is a list, and cloud-init wants a mapping (`key: value`).")


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
    short = _short_cuts(spec)
    own = spec.user_data
    if own is not None and not short:
        return own
    config = f"#cloud-config\n{_json(short).decode()}"
    if own is None:
        return config
    whole = MIMEMultipart(boundary=_boundary(own, config))
    whole.attach(_part(_kind(own) or "plain", own))
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


def _kind(text: str) -> str | None:
    """The subtype of user data by its first words; `mixed` where it is MIME already."""
    if _MIME.match(text):
        return "mixed"
    return next((kind for mark, kind in _TYPES if text.startswith(mark)), None)


def _boundary(*texts: str) -> str:
    """A line that none of the texts holds; always the same for the same texts."""
    boundary = "===============mica"
    while any(boundary in text for text in texts):
        boundary += "="
    return boundary


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
