"""The descriptions of a datastore and its files: JSON beside the data, strict and versioned.

<root>/mica-datastore.json      Marker
<root>/mica-lease               LeaseRecord
<root>/volumes/<id>.json        VolumeRecord
<root>/images/<id>.json         ImageRecord
<root>/uploads/<id>.json        UploadRecord
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from vmkernel.decoding import UndecodableError, convert_to, decode_document
from vmkernel.model import (
    Allocation,
    ImageFormat,
    ImageOrigin,
    Sha256Hex,
    Slug,
    Timestamp,
    UploadSpec,
    VolumeCheck,
    VolumeFormat,
)

__all__ = [
    "Backing",
    "ImageRecord",
    "KEPT_TOGETHER_MAX",
    "LeaseRecord",
    "Marker",
    "MovedFrom",
    "RecordError",
    "StoredRecord",
    "UploadRecord",
    "VolumeRecord",
    "decode",
    "encode",
    "encode_compactly",
]

KEPT_TOGETHER_MAX = 64
"""As many disks as a VM has."""
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class RecordError(Exception):
    """A description that can't be read; the message says why."""


class StoredRecord(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False
):
    """Base: every file carries the version of its schema."""

    schema: int = 1


class Marker(StoredRecord, frozen=True, kw_only=True):
    """Marks a directory tree as a datastore, and identifies it."""

    uuid: str
    created_at: Timestamp


class LeaseRecord(StoredRecord, frozen=True, kw_only=True):
    """Which host has the datastore; see lease.py."""

    host_uuid: str
    host_name: str
    machine: str
    counter: Size
    released: bool = False


class MovedFrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a volume was before its last move. If it is found there too, that one is void: a crash
    prevented its removal.
    """

    datastore_uuid: str
    format: VolumeFormat


class Backing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The volume of the same datastore that a linked one is based on, identified by its id and
    creation time: another volume that reused the id is a different one.
    """

    volume: Slug
    created_at: Timestamp


class VolumeRecord(StoredRecord, frozen=True, kw_only=True):
    """A volume; the size is that of the file itself."""

    id: Slug
    created_at: Timestamp
    revision: int
    format: VolumeFormat
    allocation: Allocation = Allocation.THIN
    source_image: Slug | None = None
    source_volume: Slug | None = None
    moved_from: MovedFrom | None = None
    moving_to: str | None = None
    """The UUID of the datastore to which the last step of a move was under way: if the volume is
    found there, this one is void."""
    backing: Backing | None = None
    """Of a linked volume, always a qcow2. A file that names no backing file is complete, whatever
    this says: a crash happened between the two."""
    clone: str | None = None
    """The token of the clone of a VM that it was made for, by which it is removed if that isn't
    completed (vmkernel/vm/store/clone_journal.py)."""
    last_check: VolumeCheck | None = None
    delete_unless_used_s: Size | None = None
    """Set until a VM names it; see provisional.py."""
    keeps: Annotated[tuple[Slug, ...], msgspec.Meta(max_length=KEPT_TOGETHER_MAX)] = ()
    """Volumes that are kept together with it, until that is recorded for each."""


class ImageRecord(StoredRecord, frozen=True, kw_only=True):
    """An image, as verified at its import."""

    id: Slug
    created_at: Timestamp
    format: ImageFormat
    size_bytes: Size
    sha256: Sha256Hex
    virtual_size_bytes: Size
    origin: ImageOrigin | None = None


class UploadRecord(StoredRecord, frozen=True, kw_only=True):
    """A resumable upload; data beyond `offset_bytes` in its file don't count."""

    id: Slug
    created_at: Timestamp
    touched_at: Timestamp
    actor: str
    spec: UploadSpec
    offset_bytes: Size = 0


Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
RecordT = TypeVar("RecordT", bound=StoredRecord)

# Append only: element n turns schema n + 1 into schema n + 2.
_UPGRADES: dict[type[StoredRecord], Sequence[Upgrade]] = {
    LeaseRecord: (),
    Marker: (),
    VolumeRecord: (),
    ImageRecord: (),
    UploadRecord: (),
}


def encode(record: StoredRecord) -> bytes:
    """A record as the file's content."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def encode_compactly(record: StoredRecord) -> bytes:
    """The same on one line."""
    return msgspec.json.encode(record)


def decode(kind: type[RecordT], data: bytes) -> RecordT:
    """A record of the present schema; RecordError if that is impossible."""
    upgrades = _UPGRADES[kind]
    try:
        document = decode_document(data)
        schema = document["schema"]
        if not isinstance(schema, int) or not 1 <= schema <= len(upgrades) + 1:
            raise RecordError(f"it has schema {schema!r}, which this version does not know")
        for step in upgrades[schema - 1 :]:
            document = step(document)
        return convert_to(document, kind)
    except (UndecodableError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"it is not a valid description ({error})") from error
