"""The message to the launcher of a VM's unit; its other end is vm_launcher.c."""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["BESIDE_FD", "FIRST_QEMU_FD", "encode_handover"]

_MAGIC = 0x6D696361
_HEADER = struct.Struct("=IIII")

FIRST_QEMU_FD = 5
"""The number of the first descriptor that QEMU keeps: 3 is the link to us, 4 the log."""


BESIDE_FD = 3
"""The number of the only descriptor that the program beside QEMU has: the last one sent."""


def encode_handover(argv: Sequence[str], beside: Sequence[str] = ()) -> bytes:
    """The command line as the launcher reads it, and that of a program to run beside QEMU; the
    descriptors travel beside the first octet."""
    words = b"".join(word.encode() + b"\0" for word in (*beside, *argv))
    if words.count(b"\0") != len(argv) + len(beside):
        raise ValueError("a word holds a zero octet")
    return _HEADER.pack(_MAGIC, len(beside), len(argv), len(words)) + words
