"""One line of an authorized_keys file, checked as sshd and cloud-init read it.

Sources: sshd(8) "AUTHORIZED_KEYS FILE FORMAT"; RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709
section 4 (the encoded keys begin with their own type); cloud-init's AuthKeyLineParser.
"""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["ssh_key_fault"]

_PLAIN = (
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_TYPES = frozenset(
    (*_PLAIN, *(f"{kind.removesuffix('@openssh.com')}-cert-v01@openssh.com" for kind in _PLAIN))
)
_OPTIONS = re.compile(r'(?:[^\s"]|"(?:\\"|[^"])*")+')
"""Comma-separated options before the type; blank space only within double quotes."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
"""Stricter than Python's decoder, as OpenSSH is: nothing after the padding."""
_RSA_BITS_MIN = 1024
"""sshd's RequiredRSASize; it ignores smaller keys."""
_ED25519_BYTES = 32


def ssh_key_fault(line: str) -> str | None:
    """Why sshd would refuse a public key, in words; None if it accepts it."""
    if "PRIVATE KEY" in line:
        return "It is a private key; give the public one (the .pub file)."
    words = line.split()
    if not words:
        return "It is empty."
    if words[0] not in _TYPES:
        options = _OPTIONS.match(line.lstrip())
        words = [] if options is None else line.lstrip()[options.end() :].split()
    if len(words) < 2 or words[0] not in _TYPES:
        return (
            "It is not a public key of OpenSSH: a type such as ssh-ed25519, then the key, then a"
            " comment."
        )
    kind = words[0]
    try:
        if len(words[1]) % 4 or not _BASE64.fullmatch(words[1]):
            raise ValueError("not in base64")
        data = base64.b64decode(words[1])
        name, *rest = _fields(data)
    except (binascii.Error, ValueError):
        return f"The key after {kind} is damaged or cut off; copy the whole line."
    if name != kind.encode():
        return f"The line says {kind}, and the key in it is of another type."
    if kind == "ssh-rsa" and (len(rest) != 2 or _bits(rest[1]) < _RSA_BITS_MIN):
        return f"RSA keys below {_RSA_BITS_MIN} bits are refused by OpenSSH; use a longer one."
    if kind == "ssh-ed25519" and [len(field) for field in rest] != [_ED25519_BYTES]:
        return f"The key after {kind} is damaged or cut off; copy the whole line."
    if kind.startswith("ecdsa-sha2-") and kind in _PLAIN and rest[:1] != [kind[11:].encode()]:
        return f"The line says {kind}, and the key in it is on another curve."
    return None


def _fields(data: bytes) -> list[bytes]:
    """The length-prefixed strings of a key (RFC 4251 section 5); ValueError unless it ends with
    one. Certificates hold numbers as well, so only their first field is read."""
    fields: list[bytes] = []
    while data:
        length = int.from_bytes(data[:4])
        if len(data) < 4 + length:
            raise ValueError("cut off")
        fields.append(data[4 : 4 + length])
        data = data[4 + length :]
        if b"-cert-v01@" in fields[0]:
            break
    if not fields:
        raise ValueError("empty")
    return fields


def _bits(number: bytes) -> int:
    return int.from_bytes(number).bit_length()
