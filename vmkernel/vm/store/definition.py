"""A VM's folder: `vm.json`, its schema, and upgrades of older ones.

vms/<id>/vm.json                what is wanted, and what was pinned at creation
        nvram.fd                variables of UEFI without Secure Boot
        nvram-secure-boot.fd    variables of UEFI with it: each flavour keeps its own
        tpm.state               the TPM's state
        seed.iso                what cloud-init reads
        snapshots/ revert.json  points to go back to (snapshot_records.py)
        suspend.*               the memory of a suspended VM (saved_memory.py)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from vmkernel.decoding import UndecodableError, convert_to, decode_document
from vmkernel.host.files import (
    RECORD_MAX_BYTES,
    exists,
    fsync_directory,
    read_limited,
    remove,
    remove_tree,
    write_durably,
)
from vmkernel.model import Firmware, Record, Slug, Timestamp, VmSpec

__all__ = [
    "DEFINITION_FILE",
    "DefinitionError",
    "FIRST_UID",
    "LAST_UID",
    "NVRAM_FILES",
    "SCHEMA_VERSION",
    "SEED_FILE",
    "UPGRADES",
    "VmDefinition",
    "clear",
    "decode",
    "delete",
    "encode",
    "has_snapshots",
    "load",
    "reverting",
    "save",
]

DEFINITION_FILE = "vm.json"
NVRAM_FILES = {
    Firmware.UEFI: "nvram.fd",
    Firmware.UEFI_SECURE_BOOT: "nvram-secure-boot.fd",
}
"""The file for the variables of each flavour of UEFI: those of another would not fit, or not be
safe."""
SEED_FILE = "seed.iso"
"""Read by cloud-init; written again at each start."""
SCHEMA_VERSION = 1

FIRST_UID = 100_000
LAST_UID = 165_535
"""The users of VMs; no account of the system is in this range."""


class DefinitionError(Exception):
    """A `vm.json` that can't be used, with the reason in words."""


class VmDefinition(Record, frozen=True, kw_only=True):
    """The stored definition of a VM."""

    schema_version: int = SCHEMA_VERSION
    id: Slug
    uuid: str
    revision: int
    created_at: Timestamp
    machine_type: str
    """Pinned at creation, so that the guest sees the same hardware after an upgrade of Mica."""
    uid: int
    """The user that its QEMU runs as in the appliance."""
    spec: VmSpec
    snapshot: Slug | None = None
    """The snapshot that the present state is based on."""


Document = dict[str, Any]
UPGRADES: tuple[Callable[[Document], Document], ...] = ()
"""The n-th function turns a document of version n + 1 into one of version n + 2."""


def decode(data: bytes) -> VmDefinition:
    """Read a document of this or an older version; else DefinitionError."""
    try:
        document = decode_document(data)
    except UndecodableError as error:
        raise DefinitionError(f"it is not JSON of the right form ({error})") from error
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DefinitionError("it has no schema version")
    if version > len(UPGRADES) + 1:
        raise DefinitionError(
            f"it was written by a newer Mica (schema {version}, this one knows {len(UPGRADES) + 1})"
        )
    try:
        for upgrade in UPGRADES[version - 1 :]:
            document = upgrade(document)
        document["schema_version"] = SCHEMA_VERSION
        return convert_to(document, VmDefinition)
    except (UndecodableError, KeyError, TypeError, ValueError) as error:
        raise DefinitionError(f"its content is wrong ({error})") from error


def encode(definition: VmDefinition) -> bytes:
    """The document, readable by people."""
    return msgspec.json.format(msgspec.json.encode(definition), indent=2) + b"\n"


def load(folder: Path) -> VmDefinition:
    """Read the definition in a VM's folder; DefinitionError if it can't be used."""
    try:
        data = read_limited(folder / DEFINITION_FILE, RECORD_MAX_BYTES)
    except OSError as error:
        raise DefinitionError(f"it can't be read ({error.strerror or error})") from error
    definition = decode(data)
    if definition.id != folder.name:
        raise DefinitionError(f"it is the definition of {definition.id!r}")
    return definition


def save(folder: Path, definition: VmDefinition) -> None:
    """Write the definition; durable on return."""
    write_durably(folder / DEFINITION_FILE, encode(definition), mode=0o600)


def has_snapshots(folder: Path) -> bool:
    """True if a VM's folder holds snapshots, or a revert that was begun (blocking)."""
    return exists(folder / "snapshots") or reverting(folder)


def reverting(folder: Path) -> bool:
    """True if a revert was begun and has not ended (blocking)."""
    return exists(folder / "revert.json")


def clear(folder: Path) -> None:
    """Remove a folder whose VM is deleted, with what is left in it."""
    remove_tree(folder)


def delete(folder: Path) -> None:
    """Delete a VM's folder: the definition first, durably, so that no half VM is ever seen; but
    before it what would take it for a clone that was cut off (clone_journal.py)."""
    remove(folder.parent / f".clone-{folder.name}.json")
    fsync_directory(folder.parent)
    remove(folder / DEFINITION_FILE)
    fsync_directory(folder)
    clear(folder)
    fsync_directory(folder.parent)
