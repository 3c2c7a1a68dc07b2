"""Linux kernels: a bzImage (Documentation/arch/x86/boot.rst) or an ELF vmlinux, for x86-64."""

from __future__ import annotations

import struct

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import Data, Format, FormatError, Magic, Rank

__all__ = ["LinuxKernel"]

_BOOT_FLAG = Magic(0x1FE, b"\x55\xaa")
_HDRS = Magic(0x202, b"HdrS")
_ELF = Magic(0, b"\x7fELF")
_64_BIT_LITTLE_ENDIAN = Magic(4, b"\x02\x01")
_MACHINE_AT = 18
_X86_64 = 62


class LinuxKernel(Format):
    """Booted directly."""

    noun = "a Linux kernel"
    source = SourceFormat.LINUX_KERNEL
    rank = Rank.CONTENT
    magics = (_HDRS, _ELF)

    def size(self, data: Data) -> int:
        if _ELF.at(data):
            machine = data.read(_MACHINE_AT, 2)
            if len(machine) < 2 or not _64_BIT_LITTLE_ENDIAN.at(data):
                raise FormatError("it is an ELF file, but not a 64-bit little-endian one")
            if struct.unpack("<H", machine)[0] != _X86_64:
                raise FormatError("it is an ELF file for another architecture")
        elif not (_BOOT_FLAG.at(data) and _HDRS.at(data)):
            raise FormatError("it is neither a bzImage nor an ELF vmlinux")
        return data.size
