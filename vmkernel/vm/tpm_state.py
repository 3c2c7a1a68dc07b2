"""The state of a VM's TPM: one file in its folder, bound as a file into its jail.

vms/<id>/tpm.state    swtpm's linear store (`backend-uri=file://`)
vms/<id>/tpm/         how it lay before: a folder with a file for each part; taken over at the
                      first start, and out of old snapshots when the VM goes back to them

Layout: swtpm's src/swtpm/swtpm_nvstore_linear.h, little-endian: magic, version, one octet of
padding, length of the header, then 15 entries of offset, length and room; the first three are
the permanent, the volatile and the saved state.

swtpm writes in place while it runs, so a copy is taken only once two readings agree.
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
    unlink_durably,
    write_durably,
)
from vmkernel.host.folder import FileFault, UnsafeFileError, open_folder

__all__ = ["STATE_FILE", "copy", "decode", "encode", "prepare", "read", "write"]

STATE_FILE = "tpm.state"
OLD_FOLDER = "tpm"
_PARTS = ("permall", "volatilestate", "savestate")
_OLD_NAMES = tuple(f"tpm2-00.{part}" for part in _PARTS)

_MAGIC = 0x737774706D6C696E
_VERSION = 1
_HEAD = struct.Struct("<QBBH")
_ENTRY = struct.Struct("<III")
_ENTRIES = 15
_HEAD_BYTES = _HEAD.size + _ENTRIES * _ENTRY.size

_MAX_BYTES = 4 << 20
"""A TPM 2.0's parts have some 100 KiB together; each gets room up to the next power of two."""
_READINGS = 20
_BETWEEN_S = 0.05


def encode(parts: Mapping[str, bytes]) -> bytes:
    """The parts by their names as one file; nothing where there are none."""
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
    """The parts in a file; ValueError where it isn't whole."""
    if not any(data[: _HEAD.size]):
        return {}  # made, and never yet used
    if len(data) < _HEAD_BYTES:
        raise ValueError("it is cut off")
    magic, version, _, length = _HEAD.unpack_from(data)
    if (magic, version, length) != (_MAGIC, _VERSION, _HEAD_BYTES):
        raise ValueError("it is no state of a TPM")
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
    """Make sure that a VM that is off has its file, and take over what lies there in the old
    form; durable on return (blocking)."""
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


def copy(source: Path, target: Path) -> None:
    """Let a folder hold the state that another one holds, or none as that; durable on return.

    UnsafeFileError where something else lies in its place, or where it is never at rest.
    """
    data = _read(source)
    if data is None:
        unlink_durably(target / STATE_FILE)
    else:
        write_durably(target / STATE_FILE, data)
    remove_tree(target / OLD_FOLDER)


def read(folder: Path) -> dict[str, bytes]:
    """The parts of a folder's state, at rest; none where there is no TPM. See `copy`."""
    data = _read(folder)
    return {} if data is None else decode(data)


def write(folder: Path, parts: Mapping[str, bytes]) -> None:
    """Let a folder hold a state of these parts; durable on return."""
    write_durably(folder / STATE_FILE, encode(parts))


def _read(folder: Path) -> bytes | None:
    """The state as one file, at rest; None where there is none."""
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
    """The parts in the old form; None where there is no such folder."""
    found = {}
    try:
        with open_folder(folder / OLD_FOLDER) as opened:
            for part, name in zip(_PARTS, _OLD_NAMES, strict=True):
                with contextlib.suppress(FileNotFoundError):
                    found[part] = opened.read(name, _MAX_BYTES // len(_PARTS), single=True)
    except FileNotFoundError:
        return None
    return found
