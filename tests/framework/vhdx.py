"""VHDX files whose last changes are in the log alone, as a host leaves them that lost its power
between the log and the tables ([MS-VHDX] 2.3)."""

from __future__ import annotations

__all__ = ["with_log_in_use", "with_zeros_in_log"]

_HEADERS_AT = (64 << 10, 128 << 10)
_HEADER_BYTES = 4096
_CHECKSUM, _LOG_GUID = slice(4, 8), slice(48, 64)
_LOG_AT, _LOG_BYTES = 1 << 20, 1 << 20
_BAT_AT, _BAT_BYTES = 2 << 20, 4096
_ENTRY_GUID = slice(32, 48)
_CASTAGNOLI = 0x82F63B78


def with_log_in_use(before: bytes, after: bytes) -> bytes:
    """The file `after`, to which qemu wrote (its log keeps the entries), set back to where its
    last entry is in the log, and the table of blocks is still that of `before`."""
    data = bytearray(after)
    entries = [
        data[at : at + 64]
        for at in range(_LOG_AT, _LOG_AT + _LOG_BYTES, 4096)
        if data[at : at + 4] == b"loge"
    ]
    assert entries, "qemu logged nothing"
    last = max(entries, key=lambda entry: int.from_bytes(entry[16:24], "little"))
    table = slice(_BAT_AT, _BAT_AT + _BAT_BYTES)
    assert data[table] != before[table]
    data[table] = before[table]
    for at in _HEADERS_AT:
        header = data[at : at + _HEADER_BYTES]
        header[_LOG_GUID] = last[_ENTRY_GUID]
        header[_CHECKSUM] = bytes(4)
        header[_CHECKSUM] = _crc32c(header).to_bytes(4, "little")
        data[at : at + _HEADER_BYTES] = header
    return bytes(data)


def with_zeros_in_log(data: bytes, length: int) -> bytes:
    """The same file, whose log says instead that there are so many zeros."""
    changed = bytearray(data)
    in_use = data[_HEADERS_AT[0] + _LOG_GUID.start : _HEADERS_AT[0] + _LOG_GUID.stop]
    for at in range(_LOG_AT, _LOG_AT + _LOG_BYTES, 4096):
        entry = changed[at : at + 4096]
        if entry[:4] != b"loge" or entry[_ENTRY_GUID] != in_use:
            continue
        entry[8:12] = (4096).to_bytes(4, "little")
        entry[24:28] = (1).to_bytes(4, "little")
        sequence = entry[16:24]
        numbers = length.to_bytes(8, "little") + (3 << 20).to_bytes(8, "little")
        entry[64:96] = b"zero" + bytes(4) + numbers + sequence
        entry[_CHECKSUM] = bytes(4)
        entry[_CHECKSUM] = _crc32c(entry).to_bytes(4, "little")
        changed[at : at + 4096] = entry
    assert changed != data
    return bytes(changed)


def _crc32c(data: bytes | bytearray) -> int:
    value = 0xFFFFFFFF
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
    return value ^ 0xFFFFFFFF
