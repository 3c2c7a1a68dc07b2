"""The message to the launcher of a VM's unit; its other end is vm_launcher.c."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BESIDE_FD", "FIRST_QEMU_FD", "Program", "encode_handover"]

_MAGIC = 0x6D696361
_HEADER = struct.Struct("=IIIIII")
_INSTRUCTION_BYTES = 8

FIRST_QEMU_FD = 5
"""The number of the first descriptor that QEMU keeps: 3 is the link to us, 4 the log."""


BESIDE_FD = 3
"""The number of the only descriptor that the program beside QEMU has: the last one sent."""


@dataclass(frozen=True)
class Program:
    """A program for the launcher to start."""

    argv: Sequence[str]
    """Begins with the program's path."""
    calls: bytes
    """Its filter of system calls, compiled; the launcher starts nothing without one."""


def encode_handover(qemu: Program, beside: Program | None = None) -> bytes:
    """What the launcher becomes, and the program to run beside it; the descriptors travel beside
    the first octet."""
    programs = [qemu] if beside is None else [beside, qemu]
    words = b"".join(word.encode() + b"\0" for program in programs for word in program.argv)
    if words.count(b"\0") != sum(len(program.argv) for program in programs):
        raise ValueError("a word holds a zero octet")
    lengths = [len(program.calls) // _INSTRUCTION_BYTES for program in programs]
    if not all(lengths) or any(len(program.calls) % _INSTRUCTION_BYTES for program in programs):
        raise ValueError("a program has no filter, or a part of one")
    beside_words = 0 if beside is None else len(beside.argv)
    beside_length = 0 if beside is None else lengths[0]
    header = _HEADER.pack(
        _MAGIC, beside_words, len(qemu.argv), len(words), beside_length, lengths[-1]
    )
    return header + words + b"".join(program.calls for program in programs)
