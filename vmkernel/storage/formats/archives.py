"""Archives and other packages, recognised by their first bytes to name them in messages; never
unpacked.

tar    POSIX.1-1988 ustar, and the older kind by its checksum
zip    APPNOTE.TXT 4.3.7, 4.3.16;  7z  7zFormat.txt;  cab  [MS-CAB] 2.1;  others: file(1)'s magic
An OVA is a tar whose first member is an OVF description (DSP0243 9.1).
"""

from __future__ import annotations

from vmkernel.storage.formats.base import Data

__all__ = ["archive_of"]

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"PK\x07\x08", "a part of a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a rar archive"),
    (0, b"MSCF\0\0\0\0", "a cabinet (cab)"),
    (0, b"ISc(", "a cabinet of InstallShield"),
    (0, b"MSWIM\0\0\0", "a Windows image (wim), which is installed from and no disk"),
    (0, b"!<arch>\n", "an ar archive or a Debian package"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"xar!", "a xar archive"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "a forensic image (E01)"),
    (257, b"ustar\x0000", "a tar archive"),
    (257, b"ustar  \0", "a tar archive"),
)
_TAR_BYTES = 512
_DMG_TRAILER = b"koly\0\0\0\4"


def archive_of(data: Data, *, parts: bool = False) -> str | None:
    """What package the data are, with its article; None if they are none.

    With `parts`, also what can be recognised only at the beginning of some data.
    """
    head = data.read(0, 2 * _TAR_BYTES)
    for at, magic, name in _MAGICS:
        if head[at : at + len(magic)] == magic:
            return _tar(head) if name == "a tar archive" else name
    if _is_old_tar(head):
        return _tar(head)
    last = data.read(max(0, data.size - _TAR_BYTES), len(_DMG_TRAILER))
    return "a disk image of macOS (dmg)" if not parts and last == _DMG_TRAILER else None


def _tar(head: bytes) -> str:
    name = head[:100].partition(b"\0")[0]
    return "an OVA, a tar archive" if name.lower().endswith(b".ovf") else "a tar archive"


def _is_old_tar(head: bytes) -> bool:
    """True for a header with a correct checksum and correct numbers, which no boot sector has."""
    block = head[:_TAR_BYTES]
    if len(block) < _TAR_BYTES or not block[0] or not block[0:1].isascii():
        return False
    try:
        stated = int(block[148:156].strip(b" \0"), 8)
        for start, end in ((100, 108), (124, 136), (136, 148)):
            int(block[start:end].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + 8 * 0x20 + sum(block[156:])
