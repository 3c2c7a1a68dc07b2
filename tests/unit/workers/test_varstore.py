"""The store of a guest's firmware variables: what is kept, what is added, what is refused."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import asdict
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from virt import firmware

from firmware.guest_firmware.secure_boot_keys import MICROSOFT_2023
from vmkernel.workers.secure_boot import Key, add_keys, missing_keys
from vmkernel.workers.varstore import Store, StoreError, certificates, count_signatures

KEYS = [Key.of(asdict(key)) for key in MICROSOFT_2023]
STORE_BYTES = 0x8000
LENGTH = 0x20000
ADDED, IN_TRANSITION, DELETED = 0x3F, 0x3E, 0x3D
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
SECURITY = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
OTHER = bytes(range(16))
X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
OLD = b"an old certificate"
OLD_SHA256 = hashlib.sha256(OLD).hexdigest()
NEW = Key("db", OLD_SHA256, b"the new certificate")


def signatures(*entries: bytes) -> bytes:
    """One list a certificate."""
    return b"".join(
        X509 + struct.pack("<III", 28 + 16 + len(entry), 0, 16 + len(entry)) + bytes(16) + entry
        for entry in entries
    )


def variable(name: str, data: bytes, vendor: bytes = OTHER, state: int = ADDED) -> bytes:
    text = name.encode("utf-16-le") + b"\0\0"
    head = struct.pack("<HBBIQ16sII", 0x55AA, state, 0, 0x27, 7, bytes(range(16)), 0, len(text))
    raw = head + struct.pack("<I16s", len(data), vendor) + text + data
    return raw + b"\xff" * (-len(raw) % 4)


def flash(*variables: bytes, log: bytes = b"") -> bytes:
    """A file as OVMF makes it: volume, store, write log."""
    header = 0x48
    volume = bytes(16) + bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")
    volume += struct.pack("<Q4sIHHHBB", LENGTH, b"_FVH", 0x4FEFF, header, 0, 0, 0, 2)
    store = bytes.fromhex("782cf3aa7b949a43a1802e144ec37792")
    store += struct.pack("<IBBHI", STORE_BYTES - header, 0x5A, 0xFE, 0, 0)
    body = volume.ljust(header, b"\0") + store + b"".join(variables)
    return (body.ljust(STORE_BYTES, b"\xff") + log).ljust(LENGTH, b"\xff")


def values(image: bytes) -> dict[bytes, bytes]:
    return {v.name: v.data for v in Store.parse(image).variables}


def test_what_is_missing_is_added_and_the_rest_stays() -> None:
    before = flash(
        variable("Boot0000", b"entry"),
        variable("db", signatures(OLD), SECURITY),
        variable("gone", b"x", state=DELETED),
        variable("Lang", b"en", state=IN_TRANSITION),
        variable("Timeout", b"old", state=IN_TRANSITION),
        variable("Timeout", b"new"),
    )
    after = add_keys(before, [NEW])
    assert len(after) == len(before)
    assert after[STORE_BYTES:] == before[STORE_BYTES:]
    old, new = Store.parse(before), Store.parse(after)
    assert [v.key for v in new.variables] == [v.key for v in old.variables]
    for was, now in zip(old.variables, new.variables, strict=True):
        assert was.head == now.head
        assert was.data == now.data or now.name.startswith(b"d\0b\0")
    assert certificates(new.find("db")) == {OLD_SHA256, hashlib.sha256(NEW.certificate).hexdigest()}
    assert b"gone" not in b"".join(values(after))
    assert add_keys(after, [NEW]) == after


def test_who_does_not_trust_the_old_one_gets_no_new_one() -> None:
    """A guest with keys of its own, and one whose keys were cleared."""
    for image in (
        flash(variable("db", signatures(b"their own"), SECURITY)),
        flash(variable("db", signatures(OLD), OTHER)),
        flash(),
    ):
        assert missing_keys(Store.parse(image), [NEW]) == []
        assert add_keys(image, [NEW]) == image


def test_it_must_fit() -> None:
    full = flash(
        variable("db", signatures(OLD), SECURITY), variable("full", bytes(STORE_BYTES - 0x160))
    )
    assert missing_keys(Store.parse(full), [NEW]) == [0]
    with pytest.raises(StoreError, match="no room"):
        add_keys(full, [NEW])


def work_log(bits: int, record: int) -> bytes:
    """The firmware's log with one write of one record."""
    head = bytes.fromhex("2b29589e687c7d49a0ce6500fd9f1b95") + struct.pack("<IB3xQ", 0, 0xFE, 0xFE0)
    write = struct.pack("<B3x16s4xQQ", bits, bytes(16), 1, 8)
    return head + write + bytes([record]).ljust(40 + 8, b"\0")


def test_a_write_that_was_cut_off_is_not_overtaken() -> None:
    old = variable("db", signatures(OLD), SECURITY)
    pending = flash(old, log=work_log(0xFC, 0xFD))
    assert missing_keys(Store.parse(pending), [NEW]) == [0]
    with pytest.raises(StoreError, match="cut off while it wrote"):
        add_keys(pending, [NEW])
    for bits, record in ((0xF8, 0xF9), (0xFC, 0xF9), (0xFC, 0xFF), (0xFF, 0xFD)):
        assert add_keys(flash(old, log=work_log(bits, record)), [NEW])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "cut off"),
        (bytes(LENGTH), "no volume"),
        (flash()[:0x20], "cut off"),
        (flash()[:0x4000], "no volume"),
        (flash(variable("x", b"")[:-4] + b"\xff" * 4), ""),
        (flash().replace(struct.pack("<I", STORE_BYTES - 0x48), b"\xff\xff\xff\x7f"), "larger"),
        (flash(variable("v", b"")[:40] + b"\xff\xff\xff\xff" + bytes(60)), "beyond the end"),
        (flash().replace(b"\x5a\xfe", b"\xff\xff"), "no store"),
    ],
    ids=["empty", "zeros", "head", "short", "torn", "large", "beyond", "unformatted"],
)
def test_what_is_no_store(image: bytes, words: str) -> None:
    if not words:
        Store.parse(image)
        return
    with pytest.raises(StoreError, match=words):
        Store.parse(image)


@pytest.mark.parametrize(
    "data",
    [
        X509 + struct.pack("<III", 0, 0, 44),
        X509 + struct.pack("<III", 28, 0, 0),
        X509 + struct.pack("<III", 28 + 60, 40, 1) + bytes(60),
        X509 + struct.pack("<III", 28 + 50, 0, 44) + bytes(50),
        X509 + struct.pack("<III", 1 << 31, 0, 44) + bytes(50),
        b"short",
    ],
)
def test_lists_that_make_no_sense(data: bytes) -> None:
    image = flash(variable("db", data, SECURITY))
    with pytest.raises(StoreError, match="list of signatures"):
        add_keys(image, [NEW])
    with pytest.raises(StoreError, match="list of signatures"):
        count_signatures(Store.parse(image).find("db"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_a_guest_writes(data: st.DataObject) -> None:
    """It is refused in words, or read; what is written then is a store again."""
    image = bytearray(
        flash(
            variable("db", signatures(OLD, b"other"), SECURITY),
            variable("KEK", signatures(OLD), GLOBAL),
            variable("Boot0000", b"entry"),
            log=work_log(0xFC, 0xF9),
        )
    )
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.one_of(st.integers(0, 0x300), st.integers(STORE_BYTES, STORE_BYTES + 99)))
        image[at] = data.draw(st.integers(0, 255))
    try:
        after = add_keys(bytes(image), [NEW])
    except StoreError:
        return
    assert len(after) == len(image)
    assert missing_keys(Store.parse(after), [NEW]) == []


def test_the_certificates_are_those_of_the_makers_of_firmware() -> None:
    """virt-firmware carries them too, and those that they replace."""
    known = {}
    for path in Path(str(firmware.__file__)).parent.glob("certs/microsoft.com/*.pem"):
        der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        known[hashlib.sha256(der).hexdigest()] = path.stem
    assert len(MICROSOFT_2023) == 4
    for key in MICROSOFT_2023:
        der = base64.b64decode(key.certificate)
        certificate = x509.load_der_x509_certificate(der)
        assert key.name in certificate.subject.rfc4514_string()
        assert known[hashlib.sha256(der).hexdigest()].endswith("2023")
        assert known[key.replaces_sha256].endswith("2011")
