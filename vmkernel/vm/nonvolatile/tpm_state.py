"""The state of a VM's TPM: one file in its folder, bound as a file into its jail.

vms/<id>/tpm.state    swtpm's linear store (`backend-uri=file://`)
vms/<id>/tpm.state.good     a copy of the last one that a start has proven
vms/<id>/tpm.state.damaged  the last one in whose place that copy was put
vms/<id>/tpm/         how it lay before: a folder with a file for each part; taken over at the
                      first start, and out of old snapshots when the VM goes back to them

Layout: swtpm's src/swtpm/swtpm_nvstore_linear.h, little-endian: magic, version, one octet of
padding, length of the header, then 15 entries of offset, length and room; the first three are
the permanent, the volatile and the saved state.

swtpm writes in place while it runs, so a copy is taken only once two readings agree, and a power
cut or a kill in the middle can damage it. (Its other form, a folder, is replaced file by file; but
a folder in the jail is one in which QEMU can make files.) Therefore:

  start     damaged: the good copy takes its place       `prove`
  runs      libtpms took the state: that is the copy      `keep`
            it didn't: the copy, and another start        `go_back`
  end       what swtpm wrote is made durable              `make_durable`

A new state that is put in the place of the present one (`copy`, `write`) voids the good copy first.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from vmkernel.host.files import (
    create_file,
    exists,
    fsync_directory,
    remove_tree,
    sync_file,
    unlink_durably,
    write_durably,
)
from vmkernel.host.folder import FileFault, UnsafeFileError, open_folder

__all__ = [
    "GOOD_FILE",
    "STATE_FILE",
    "TpmDamagedError",
    "copy",
    "decode",
    "encode",
    "go_back",
    "keep",
    "make_durable",
    "prepare",
    "prove",
    "read",
    "write",
]

STATE_FILE = "tpm.state"
GOOD_FILE = "tpm.state.good"
DAMAGED_FILE = "tpm.state.damaged"
OLD_FOLDER = "tpm"
_PARTS = ("permall", "volatilestate", "savestate")
_OLD_NAMES = tuple(f"tpm2-00.{part}" for part in _PARTS)

_MAGIC = 0x737774706D6C696E
_VERSION = 1
_HEAD = struct.Struct("<QBBH")
_ENTRY = struct.Struct("<III")
_ENTRIES = 15
_HEAD_BYTES = _HEAD.size + _ENTRIES * _ENTRY.size
_BLOB = struct.Struct(">BBHHI")
"""Before each part: version, least version, length of this, flags, length of all."""

_MAX_BYTES = 4 << 20
"""A TPM 2.0's parts have some 100 KiB together; each gets room up to the next power of two."""
_READINGS = 20
_BETWEEN_S = 0.05


class TpmDamagedError(Exception):
    """The state is damaged, and there is no copy; the message says how."""


def encode(parts: Mapping[str, bytes]) -> bytes:
    """The parts by their names as one file; empty if there are none."""
    if not parts:
        return b""
    entries = []
    body = b""
    for name in _PARTS:
        data = parts.get(name)
        if data is None:
            entries.append(_ENTRY.pack(0, 0, 0))
            continue
        room = 1 << max(0, len(data) - 1).bit_length()
        entries.append(_ENTRY.pack(_HEAD_BYTES + len(body), len(data), room))
        body += data.ljust(room, b"\0")
    entries += [_ENTRY.pack(0, 0, 0)] * (_ENTRIES - len(_PARTS))
    return _HEAD.pack(_MAGIC, _VERSION, 0, _HEAD_BYTES) + b"".join(entries) + body


def decode(data: bytes) -> dict[str, bytes]:
    """The parts in a file; ValueError if it is incomplete."""
    if not any(data[: _HEAD.size]):
        return {}  # made, and never yet used
    if len(data) < _HEAD_BYTES:
        raise ValueError("it is cut off")
    magic, version, _, length = _HEAD.unpack_from(data)
    if (magic, version, length) != (_MAGIC, _VERSION, _HEAD_BYTES):
        raise ValueError("it is not the state of a TPM")
    found = {}
    for number, name in enumerate(_PARTS):
        at, size, room = _ENTRY.unpack_from(data, _HEAD.size + number * _ENTRY.size)
        if not at:
            continue
        if at < _HEAD_BYTES or size > room or at + size > len(data):
            raise ValueError("it is cut off")
        found[name] = data[at : at + size]
    return found


def prepare(folder: Path) -> Path:
    """Make sure that a VM that is off has its file, and convert state in the old form; durable on
    return (blocking).
    """
    path = folder / STATE_FILE
    if not exists(path):
        old = _read_old(folder)
        if old is not None:
            write_durably(path, encode(old))
        else:
            os.close(create_file(path))
            fsync_directory(folder)
    remove_tree(folder / OLD_FOLDER)
    return path


def prove(folder: Path) -> tuple[bytes, str | None]:
    """Check the state of a VM that is about to start (blocking): returns what it starts with, and
    why the good copy had to replace it, if it did.
    """
    data = _content(folder, STATE_FILE)
    fault = _fault(data) if data is not None else "it is missing"
    good = _content(folder, GOOD_FILE)
    if fault is None and (good is None or _permanent(data or b"")):
        return data or b"", None
    if good is None:
        if data is None:
            return b"", None  # there never was one
        raise TpmDamagedError(fault)
    if (worse := _fault(good)) is not None or not _permanent(good):
        raise TpmDamagedError(f"{fault}; and of its copy: {worse or 'it is empty'}")
    _replace(folder, data, good)
    return good, fault or "it is empty"


def keep(folder: Path, data: bytes) -> None:
    """A start has accepted this state (blocking): make it the good copy; durable on return."""
    if data and _permanent(data) and data != _content(folder, GOOD_FILE):
        write_durably(folder / GOOD_FILE, data, limit=_MAX_BYTES)


def go_back(folder: Path) -> bool:
    """The state was refused at a start: replace it by the good copy (blocking). False if there is
    none, or it is the same.
    """
    data, good = _content(folder, STATE_FILE), _content(folder, GOOD_FILE)
    if good is None or good == data or _fault(good) is not None:
        return False
    _replace(folder, data, good)
    return True


def make_durable(folder: Path) -> None:
    """swtpm has ended and left to the kernel when its last writes reach the disk (blocking)."""
    with contextlib.suppress(FileNotFoundError):
        sync_file(folder / STATE_FILE)


def _replace(folder: Path, damaged: bytes | None, good: bytes) -> None:
    """The damaged state is kept beside it for examination."""
    if damaged is not None:
        write_durably(folder / DAMAGED_FILE, damaged, limit=_MAX_BYTES)
    write_durably(folder / STATE_FILE, good, limit=_MAX_BYTES)


def _content(folder: Path, name: str) -> bytes | None:
    try:
        with open_folder(folder) as opened:
            return opened.read(name, _MAX_BYTES, single=True)
    except FileNotFoundError:
        return None


def _permanent(data: bytes) -> bool:
    """True if a TPM was ever used with this state."""
    return "permall" in decode(data)


def _fault(data: bytes) -> str | None:
    """What is wrong with a state at rest, as far as lengths and names show."""
    try:
        parts = decode(data)
    except ValueError as error:
        return str(error)
    for part in parts.values():
        if len(part) < _BLOB.size:
            return "it is cut off"
        _, _, head, _, total = _BLOB.unpack_from(part)
        if head != _BLOB.size or total != len(part):
            return "a part of it is not whole"
    if data and not parts and any(data):
        return "it is cut off"
    return None


def copy(source: Path, target: Path) -> None:
    """Copy the state of another folder, or its absence; durable on return.

    UnsafeFileError if something else is in its place, or if it is never at rest.
    """
    data = _read(source)
    unlink_durably(target / GOOD_FILE)
    if data is None:
        unlink_durably(target / STATE_FILE)
    else:
        write_durably(target / STATE_FILE, data)
    remove_tree(target / OLD_FOLDER)


def read(folder: Path) -> dict[str, bytes]:
    """The parts of a folder's state, at rest; empty if there is no TPM. See `copy`."""
    data = _read(folder)
    return {} if data is None else decode(data)


def write(folder: Path, parts: Mapping[str, bytes]) -> None:
    """Let a folder hold a state of these parts; durable on return."""
    unlink_durably(folder / GOOD_FILE)
    write_durably(folder / STATE_FILE, encode(parts))


def _read(folder: Path) -> bytes | None:
    """The state as one file, at rest; None if there is none."""
    last: bytes | None = None
    for reading in range(_READINGS):
        if reading:
            time.sleep(_BETWEEN_S)
        try:
            with open_folder(folder) as opened:
                data = opened.read(STATE_FILE, _MAX_BYTES, single=True)
        except FileNotFoundError:
            old = _read_old(folder)
            if old is None:
                return None
            data = encode(old)
        if data == last:
            with contextlib.suppress(ValueError):
                decode(data)
                return data
        last = data
    raise UnsafeFileError(FileFault.CHANGES, STATE_FILE, " all the time, or is damaged")


def _read_old(folder: Path) -> dict[str, bytes] | None:
    """The parts in the old form; None if there is no such folder."""
    found = {}
    try:
        with open_folder(folder / OLD_FOLDER) as opened:
            for part, name in zip(_PARTS, _OLD_NAMES, strict=True):
                with contextlib.suppress(FileNotFoundError):
                    found[part] = opened.read(name, _MAX_BYTES // len(_PARTS), single=True)
    except FileNotFoundError:
        return None
    return found
