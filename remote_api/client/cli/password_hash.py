"""Hashes of passwords for guests, made here so that no password leaves this machine.

SHA-512-crypt, `$6$` of crypt(5), which every Linux guest and cloud-init know (Ulrich Drepper,
"Unix crypt using SHA-256 and SHA-512", version 0.6). Python has none since 3.13.
"""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["hash_password"]

_ROUNDS = 5000
"""The default of `$6$` if it names no number."""
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT_LENGTH = 16


def hash_password(password: str, salt: str | None = None) -> str:
    """The hash of a password, with a random salt of 16 characters if none is given."""
    salt = salt or "".join(secrets.choice(_ALPHABET) for _ in range(_SALT_LENGTH))
    return f"$6${salt}${_encoded(_digest(password.encode(), salt.encode()))}"


def _digest(password: bytes, salt: bytes) -> bytes:
    count = len(password)
    inner = hashlib.sha512(password + salt + password).digest()
    outer = hashlib.sha512(password + salt + _repeated(inner, count))
    bits = count
    while bits:
        outer.update(inner if bits & 1 else password)
        bits >>= 1
    digest = outer.digest()
    passwords = _repeated(hashlib.sha512(password * count).digest(), count)
    salts = _repeated(hashlib.sha512(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(_ROUNDS):
        step = hashlib.sha512(passwords if number & 1 else digest)
        if number % 3:
            step.update(salts)
        if number % 7:
            step.update(passwords)
        step.update(digest if number & 1 else passwords)
        digest = step.digest()
    return digest


def _repeated(data: bytes, length: int) -> bytes:
    return (data * (length // len(data) + 1))[:length]


def _encoded(digest: bytes) -> str:
    """Three octets at a time, in the order of crypt(5): 0 21 42, 22 43 1, 44 2 23, … 63."""
    text = []
    first, second, third = 0, 21, 42
    for _ in range(21):
        text.append(_characters(digest[first] << 16 | digest[second] << 8 | digest[third], 4))
        first, second, third = second + 1, third + 1, first + 1
    return "".join(text) + _characters(digest[63], 2)


def _characters(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 6 * place & 63] for place in range(count))
