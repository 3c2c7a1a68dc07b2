"""Verify files again on the open descriptor that a program is then given.

A file may have been changed since it was last read, by anything that writes to the datastore or has
the disk open; so check again that it names no other file, and how large it can be.
"""

from __future__ import annotations

import os

from vmkernel.host.qemu_img import qcow2_tables_bytes
from vmkernel.model import ErrorCode
from vmkernel.storage.errors import StorageError
from vmkernel.storage.formats.base import FileData, FormatError, Rank
from vmkernel.storage.formats.qcow2 import HEADER_PROBE_BYTES, read_header
from vmkernel.storage.formats.registry import format_named

__all__ = ["verify_open_disk", "verify_qcow2"]


def verify_open_disk(fd: int, image_format: str, may_be_damaged: bool) -> int:
    """See vmkernel.host.qemu_img.Verify."""
    try:
        if image_format == "qcow2":
            return verify_qcow2(fd, may_be_damaged=may_be_damaged)
        found = format_named(image_format)
        if found is not None and found.rank is Rank.CONTAINER:
            found.verify(FileData(fd))
    except FormatError as error:
        raise StorageError(
            ErrorCode.CONFLICT, f"The disk's file can't be used: {error}."
        ) from error
    return 0


def verify_qcow2(fd: int, *, may_be_damaged: bool = False) -> int:
    """The bytes that the tables of an open qcow2 may take; FormatError if opening it needs a file
    other than its backing chain, which we name.
    """
    header = read_header(
        os.pread(fd, HEADER_PROBE_BYTES, 0),
        may_be_linked=True,
        may_be_damaged=may_be_damaged,
        file_bytes=None if may_be_damaged else os.fstat(fd).st_size,
    )
    return qcow2_tables_bytes(header.virtual_size_bytes, header.cluster_bytes)
