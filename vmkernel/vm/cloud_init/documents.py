"""The files of a NoCloud seed (cloud-init's documentation, "NoCloud").

meta-data        JSON, which is YAML: the instance's id and name, and what the spec adds
user-data        the short cuts (user, keys, password) as `#cloud-config`, the spec's own data, or
                 both as MIME parts; where both say something, the spec's own data win, and
                 lists are joined
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
_MEDIA = re.compile(r"[\t\n\r -~\x85\xa0-\ud7ff\ue000-\U0010ffff]*")


def check_cloud_init(spec: CloudInitSpec) -> None:
    """MicaError, with the field, for what no guest could take."""
    base = "/spec/cloud_init"
    if spec.user_data is not None and _kind(spec.user_data) is None:
        raise MicaError.field(
            f"{base}/user_data",
            "User data must begin with `#cloud-config`, `#!`, or another mark of cloud-init's.",
        )
    for name in ("user_data", "network_config"):
        text = getattr(spec, name)
        if text is not None and not _MEDIA.fullmatch(text):
            raise MicaError.field(f"{base}/{name}", "It holds characters that YAML does not allow.")
    for key in spec.meta_data:
        if key in _OURS:
            raise MicaError.field(
                f"{base}/meta_data/{key}", f"{key} is set by the host; see `hostname`."
            )


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
    user: dict[str, Any] = {}
    if spec.user is not None:
        user["name"] = spec.user
    if spec.password_hash is not None:
        user |= {"lock_passwd": False, "hashed_passwd": spec.password_hash}
    if user:
        config["user"] = user
    if spec.ssh_keys:
        config["ssh_authorized_keys"] = list(spec.ssh_keys)
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
