"""What lists are asked for: the columns of each noun, and how they become parameters.

A text is a condition in the language of the API (`web-*`, `running,paused`); several texts are any
of these as they are, whatever characters they have. A test holds the columns against the nouns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

__all__ = [
    "AuditListQuery",
    "BackupListQuery",
    "CheckpointListQuery",
    "DatastoreListQuery",
    "DeviceListQuery",
    "DiskListQuery",
    "ImageListQuery",
    "ListQueryBase",
    "OperationListQuery",
    "SnapshotListQuery",
    "TokenListQuery",
    "UploadListQuery",
    "VmListQuery",
    "VolumeListQuery",
    "WebhookListQuery",
    "parameters_of",
]

Wanted = str | Iterable[str] | bool | None


class ListQueryBase(TypedDict, total=False):
    """What every list takes."""

    sort: str | Iterable[str] | None
    """Columns; with `-`, descending."""
    id: Wanted


class AuditListQuery(ListQueryBase, total=False):
    """Of the audit trail."""

    actor: Wanted
    outcome: Wanted
    request: Wanted
    subject: Wanted
    subject_kind: Wanted
    origin: Wanted
    code: Wanted


class BackupListQuery(ListQueryBase, total=False):
    """Of backups."""

    checkpoint: Wanted
    since: Wanted
    quiet: Wanted
    disk: Wanted


class CheckpointListQuery(ListQueryBase, total=False):
    """Of checkpoints."""

    disk: Wanted
    usable: Wanted


class DatastoreListQuery(ListQueryBase, total=False):
    """Of datastores."""

    kind: Wanted
    state: Wanted
    space: Wanted
    filesystem: Wanted
    disk: Wanted


class DeviceListQuery(ListQueryBase, total=False):
    """Of devices."""

    bus: Wanted
    address: Wanted
    vendor_id: Wanted
    product_id: Wanted
    class_code: Wanted
    name: Wanted
    driver: Wanted
    bundle: Wanted
    finding: Wanted


class DiskListQuery(ListQueryBase, total=False):
    """Of disks."""

    device: Wanted
    model: Wanted
    serial: Wanted
    transport: Wanted
    rotational: Wanted
    removable: Wanted
    blank: Wanted
    is_stick: Wanted
    datastore: Wanted
    health: Wanted


class ImageListQuery(ListQueryBase, total=False):
    """Of images."""

    datastore: Wanted
    format: Wanted
    sha256: Wanted
    used_by: Wanted


class OperationListQuery(ListQueryBase, total=False):
    """Of operations."""

    state: Wanted
    kind: Wanted
    subject: Wanted
    subject_kind: Wanted
    actor: Wanted
    parent: Wanted


class SnapshotListQuery(ListQueryBase, total=False):
    """Of snapshots."""

    state: Wanted
    parent: Wanted
    current: Wanted
    memory: Wanted
    quiesced: Wanted
    disk: Wanted


class TokenListQuery(ListQueryBase, total=False):
    """Of tokens."""

    role: Wanted
    description: Wanted


class UploadListQuery(ListQueryBase, total=False):
    """Of uploads."""

    state: Wanted
    image: Wanted
    datastore: Wanted


class VmListQuery(ListQueryBase, total=False):
    """Of VMs."""

    label: str | Iterable[str] | None
    """Selectors, of which all must hold."""
    name: Wanted
    state: Wanted
    datastore: Wanted
    guest_os: Wanted
    firmware: Wanted
    template: Wanted
    autostart: Wanted
    accelerator: Wanted
    volume: Wanted
    image: Wanted
    port_group: Wanted
    mac: Wanted


class VolumeListQuery(ListQueryBase, total=False):
    """Of volumes."""

    datastore: Wanted
    format: Wanted
    allocation: Wanted
    attached_to: Wanted
    backing: Wanted
    source_image: Wanted


class WebhookListQuery(ListQueryBase, total=False):
    """Of webhooks."""

    state: Wanted
    enabled: Wanted
    description: Wanted


def parameters_of(query: Mapping[str, object]) -> dict[str, str | list[str] | None]:
    """The parameters of a list."""
    return {name: _parameter(name, value) for name, value in query.items()}


def _parameter(name: str, value: object) -> str | list[str] | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return [value] if name == "label" else str(value)
    texts = [str(each) for each in value] if isinstance(value, Iterable) else [str(value)]
    if name == "label":
        return texts
    return ",".join(texts if name in ("sort", "fields") else map(_literal, texts))


def _literal(text: str) -> str:
    """A text as a condition that only this text meets."""
    return "".join(f"\\{each}" if each in "\\,*" else each for each in text)
