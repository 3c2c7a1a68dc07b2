"""The message to the launcher of a VM's unit; its other end is vm_launcher.c."""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["FIRST_QEMU_FD", "encode_handover"]

_MAGIC = 0x6D696361
_HEADER = struct.Struct("=III")

FIRST_QEMU_FD = 5
"""The number of the first descriptor that QEMU keeps: 3 is the link to us, 4 the log."""


def encode_handover(argv: Sequence[str]) -> bytes:
    """The command line as the launcher reads it; the descriptors travel beside the first octet."""
    words = b"".join(word.encode() + b"\0" for word in argv)
    if words.count(b"\0") != len(argv):
        raise ValueError("a word holds a zero octet")
    return _HEADER.pack(_MAGIC, len(argv), len(words)) + words
