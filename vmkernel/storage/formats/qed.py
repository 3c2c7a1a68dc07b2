"""QED: qemu's docs/interop/qed_spec.rst. Obsolete; recognised only to name it."""

from __future__ import annotations

import struct

from vmkernel.storage.formats.base import Data, Format, Magic, unpack

__all__ = ["Qed"]

_HEADER = struct.Struct("<4sIIIQQQQQII")


class Qed(Format):
    """Recognised only."""

    noun = "a QED file"
    advice = "convert it by `qemu-img convert -O qcow2`"
    magics = (Magic(0, b"QED\0"),)

    def size(self, data: Data) -> int:
        size = unpack(_HEADER, data, 0)[8]
        assert isinstance(size, int)
        return size
