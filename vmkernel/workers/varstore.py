"""The variables of a UEFI guest, as OVMF keeps them in its flash file: a pure codec.

  firmware volume header | variable store header | variables, to the end of the store | write log

A variable is a header of 60 octets, its name (UTF-16) and its data, aligned to 4. It is deleted by
clearing bits of its state; a new value is a new variable behind the last. What is written here is
the same store with every living variable once, in order, as a clean-up by the firmware leaves it.
The write log (fault-tolerant writes) must hold nothing that the firmware would still do to the
store. The guest has written all of this: nothing in it is trusted, and every loop has a bound.

Layouts: edk2 MdeModulePkg/Include/Guid/VariableFormat.h, SystemNvDataGuid.h, FaultTolerantWrite.h;
signature lists: UEFI 2.10 section 32.4.1.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

__all__ = [
    "KEY_EXCHANGE",
    "SIGNATURES",
    "Store",
    "StoreError",
    "Variable",
    "certificates",
    "count_signatures",
    "with_certificate",
]

_SIZE_MAX = 16 << 20
_NV_DATA = UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le
_AUTHENTICATED = UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
_WORKING_BLOCK = UUID("9e58292b-7c68-497d-a0ce-6500fd9f1b95").bytes_le
_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
_MICROSOFT = UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b").bytes_le
_EFI_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le
_IMAGE_SECURITY = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f").bytes_le
KEY_EXCHANGE = {"KEK": _EFI_GLOBAL, "PK": _EFI_GLOBAL}
SIGNATURES = {**KEY_EXCHANGE, "db": _IMAGE_SECURITY, "dbx": _IMAGE_SECURITY}
"""The variables with lists of signatures, and the vendors that they belong to."""

_VOLUME = struct.Struct("<16x16sQ4sIHHHBB")
_STORE = struct.Struct("<16sIBBHI")
_VARIABLE = struct.Struct("<HBBIQ16sIII16s")
_LIST = struct.Struct("<16sIII")
_START = 0x55AA
_FORMATTED, _HEALTHY = 0x5A, 0xFE
_ADDED, _IN_TRANSITION = 0x3F, 0x3E
_ALIGN = 4
_WORKING_HEADER = struct.Struct("<16sIB3xQ")
_WRITE = struct.Struct("<B3x16s4xQQ")
_RECORD_BYTES = 40
_ALLOCATED, _WRITES_ALLOCATED, _COMPLETE = 1, 2, 4
_SPARE_COMPLETE, _DESTINATION_COMPLETE = 2, 4
"""Bits that are set by being cleared."""


class StoreError(Exception):
    """The store can't be understood, or is in the middle of something: a sentence."""


@dataclass(frozen=True)
class Variable:
    """A valid variable."""

    vendor: bytes
    name: bytes
    """UTF-16, with its end."""
    data: bytes
    head: tuple[int, int, bytes, int]
    """Attributes, monotonic count, time stamp, index of a key."""

    @property
    def key(self) -> tuple[bytes, bytes]:
        """What identifies it."""
        return self.vendor, self.name

    def packed(self) -> bytes:
        """As the store holds it, aligned."""
        attributes, count, stamp, index = self.head
        raw = _VARIABLE.pack(
            *(_START, _ADDED, 0, attributes, count, stamp, index),
            *(len(self.name), len(self.data), self.vendor),
        )
        raw += self.name + self.data
        return raw + b"\xff" * (-len(raw) % _ALIGN)


@dataclass(frozen=True)
class Store:
    """A flash file and its living variables."""

    image: bytes
    start: int
    """Where the variables begin."""
    end: int
    """Where their store ends."""
    variables: tuple[Variable, ...]

    @classmethod
    def parse(cls, image: bytes) -> Store:
        """Raises StoreError."""
        if len(image) > _SIZE_MAX:
            raise StoreError("it is too large")
        if len(image) < _VOLUME.size:
            raise StoreError("it is cut off")
        guid, length, signature, _, header, *_ = _VOLUME.unpack_from(image)
        if guid != _NV_DATA or signature != b"_FVH" or not header <= length <= len(image):
            raise StoreError("it holds no volume of variables")
        if header + _STORE.size > len(image):
            raise StoreError("it is cut off")
        guid, size, formatted, healthy, *_ = _STORE.unpack_from(image, header)
        if guid != _AUTHENTICATED or (formatted, healthy) != (_FORMATTED, _HEALTHY):
            raise StoreError("it holds no store of authenticated variables")
        start, end = _aligned(header + _STORE.size), header + size
        if not start <= end <= length:
            raise StoreError("its store is larger than its volume")
        return cls(image, start, end, tuple(_living(image, start, end)))

    def find(self, name: str) -> Variable | None:
        """One of the variables with signatures."""
        wanted = SIGNATURES[name], _utf16(name)
        return next((v for v in self.variables if v.key == wanted), None)

    def put(self, new: Variable) -> Store:
        """With another value of a variable that is there."""
        return replace(
            self, variables=tuple(new if v.key == new.key else v for v in self.variables)
        )

    def packed(self) -> bytes:
        """The flash file. Raises StoreError if they don't fit, or the firmware was cut off while it
        wrote.
        """
        _refuse_pending(self.image[self.end :])
        body = b"".join(variable.packed() for variable in self.variables)
        room = self.end - self.start
        if len(body) > room:
            raise StoreError("its variables leave no room for more")
        return self.image[: self.start] + body.ljust(room, b"\xff") + self.image[self.end :]


def _aligned(at: int) -> int:
    return -(-at // _ALIGN) * _ALIGN


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-le") + b"\0\0"


def _living(image: bytes, start: int, end: int) -> Iterator[Variable]:
    """The valid ones, in order: one in transition counts if it was not replaced."""
    added: dict[tuple[bytes, bytes], Variable] = {}
    leaving: dict[tuple[bytes, bytes], Variable] = {}
    order: list[tuple[bytes, bytes]] = []
    at = start
    while at + _VARIABLE.size <= end:
        mark, state, _, attributes, count, stamp, index, name_size, data_size, vendor = (
            _VARIABLE.unpack_from(image, at)
        )
        if mark != _START:
            break
        name_at = at + _VARIABLE.size
        data_at = name_at + name_size
        if name_size > end or data_size > end or data_at + data_size > end:
            raise StoreError("a variable reaches beyond the end of its store")
        if state in (_ADDED, _IN_TRANSITION):
            found = Variable(
                vendor=vendor,
                name=image[name_at:data_at],
                data=image[data_at : data_at + data_size],
                head=(attributes, count, stamp, index),
            )
            (added if state == _ADDED else leaving)[found.key] = found
            order.append(found.key)
        at = _aligned(data_at + data_size)
    for key in dict.fromkeys(order):
        yield added.get(key) or leaving[key]


def _refuse_pending(log: bytes) -> None:
    """Raise StoreError if the firmware has begun to write and would finish it at its next start,
    over what is written now.
    """
    base = log.find(_WORKING_BLOCK)
    if base < 0 or base + _WORKING_HEADER.size > len(log):
        return
    *_, size = _WORKING_HEADER.unpack_from(log, base)
    at = base + _WORKING_HEADER.size
    end = min(len(log), at + size)
    while at + _WRITE.size <= end:
        bits, _, writes, private = _WRITE.unpack_from(log, at)
        if bits & _ALLOCATED:
            return  # nothing was written from here on
        stride = _RECORD_BYTES + private
        records = at + _WRITE.size
        if writes > (end - records) // stride:
            raise StoreError("its log of writes can't be understood")
        if bits & _COMPLETE and not bits & _WRITES_ALLOCATED:
            for number in range(writes):
                record = log[records + number * stride]
                if not record & _SPARE_COMPLETE and record & _DESTINATION_COMPLETE:
                    raise StoreError("its firmware was cut off while it wrote to it")
        at = records + writes * stride


# --- lists of signatures ----------------------------------------------------------------------


def _lists(data: bytes) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """Each list's type and its signatures, with their owners before them."""
    at = 0
    while at + _LIST.size <= len(data):
        kind, size, header, each = _LIST.unpack_from(data, at)
        if size < _LIST.size + header or at + size > len(data) or each <= 16:
            raise StoreError("a list of signatures can't be understood")
        body = data[at + _LIST.size + header : at + size]
        if len(body) % each:
            raise StoreError("a list of signatures can't be understood")
        yield kind, [body[i : i + each] for i in range(0, len(body), each)]
        at += size
    if at != len(data):
        raise StoreError("a list of signatures is cut off")


def certificates(variable: Variable | None) -> set[str]:
    """The SHA-256 of each certificate (DER) in a variable."""
    if variable is None:
        return set()
    return {
        hashlib.sha256(entry[16:]).hexdigest()
        for kind, entries in _lists(variable.data)
        if kind == _X509
        for entry in entries
    }


def count_signatures(variable: Variable | None) -> int:
    """How many entries it has."""
    return 0 if variable is None else sum(len(entries) for _, entries in _lists(variable.data))


def with_certificate(variable: Variable, certificate: bytes) -> Variable:
    """With one more certificate, of Microsoft's."""
    entry = _MICROSOFT + certificate
    head = _LIST.pack(_X509, _LIST.size + len(entry), 0, len(entry))
    return replace(variable, data=variable.data + head + entry)
