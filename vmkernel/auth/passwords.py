"""Passwords: the rules for new ones (NIST SP 800-63B), and argon2id hashes (RFC 9106).

Rules: length first. No mix of characters is demanded and nothing expires; what everybody tries
first, what repeats or counts up, and what contains the user's name is refused.
Hashing takes MEMORY_KIB for as long as it runs, so that few run at once: see PasswordHasher.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import unicodedata
from collections.abc import Callable

from vmkernel.model import MicaError
from vmkernel.operations.places import Places

__all__ = ["MEMORY_KIB", "MIN_LENGTH", "PasswordHasher", "check_password"]

MIN_LENGTH = 15
"""SP 800-63B-4 section 3.1.1.2 demands it of a password that is the only factor."""
MAX_LENGTH = 256
"""More than 64, which the same section wants to be taken; a bound on what is hashed."""
_FEW_CHARACTERS = 5
MEMORY_KIB = 19 << 10
_PASSES = 2
_LANES = 1
"""19 MiB, 2 passes, 1 lane: the first of the equal choices of OWASP's password storage guide for
argon2id. 64 MiB would be much on a host of 2 GiB whose memory is promised to guests."""
_AT_ONCE = 2
"""38 MiB at most."""
_WAITING, _WAITING_EACH = 16, 4
"""In all and of one origin; half a second of waiting at most."""
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz" * 3,
    "01234567890123456789" * 4,
    "qwertyuiopasdfghjklzxcvbnm" * 3,
    "qwertzuiopasdfghjklyxcvbnm" * 3,
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
)
_LOOKALIKES = str.maketrans("0134578@$!", "oieastbasi")
_COMMON = frozenset(
    {
        *("password", "passwort", "admin", "administrator", "root", "user", "guest", "test"),
        *("letmein", "welcome", "changeme", "secret", "default", "login", "opensesame"),
        *("mica", "hypervisor", "server", "qwerty", "whatever", "trustno", "iloveyou"),
        *("monkey", "dragon", "master", "football", "baseball", "sunshine", "princess"),
        *("superman", "batman", "correcthorsebatterystaple", "nevergonnagiveyouup"),
        *("thisismypassword", "mypassword"),
    }
)
"""Words that are tried first; a password that consists of these, digits and signs is refused."""


def check_password(password: str, *, user: str, pointer: str = "/password") -> None:
    """Raise `invalid` with the reason if this may not be a user's new password."""
    text = _normal(password)
    reason = _weakness(text, user)
    if reason is not None:
        raise MicaError.field(pointer, reason)


def _normal(password: str) -> str:
    """One form for what keyboards write differently (SP 800-63B: NFKC)."""
    return unicodedata.normalize("NFKC", password)


def _weakness(text: str, user: str) -> str | None:
    if len(text) < MIN_LENGTH:
        return f"Use at least {MIN_LENGTH} characters; a few words with spaces are fine."
    if len(text) > MAX_LENGTH:
        return f"Use at most {MAX_LENGTH} characters."
    folded = text.casefold()
    if len(user) >= 3 and user in folded:
        return "The password contains the user name; choose one without it."
    if len(set(folded)) < _FEW_CHARACTERS or re.fullmatch(r"(.{1,8}?)\1+.{0,7}", folded, re.S):
        return "The password repeats the same few characters; choose another one."
    if any(folded in run or folded in run[::-1] for run in _RUNS):
        return "The password follows the keyboard or the alphabet; choose another one."
    for spelled in (folded, folded.translate(_LOOKALIKES)):
        if _of_common_words(re.sub(r"[^a-z]", "", spelled)):
            return "The password is one of those that are tried first; choose another one."
    return None


def _of_common_words(letters: str) -> bool:
    """Whether letters are nothing but common words, or none at all."""
    ends = [True] + [False] * len(letters)
    for end in range(1, len(letters) + 1):
        ends[end] = any(ends[end - len(word)] for word in _COMMON if letters[:end].endswith(word))
    return ends[-1] and bool(letters)


class PasswordHasher:
    """Hashes and compares in threads, few at once; others wait for a moment or are refused.

    argon2 releases the interpreter's lock while it works, so that requests continue meanwhile.
    """

    def __init__(self) -> None:
        from argon2 import PasswordHasher as Argon2
        from argon2.low_level import Type

        self._argon2 = Argon2(
            time_cost=_PASSES, memory_cost=MEMORY_KIB, parallelism=_LANES, type=Type.ID
        )
        self._places = Places("logins are under way", total=_WAITING, each=_WAITING_EACH)
        self._running = asyncio.Semaphore(_AT_ONCE)
        self._hash: Callable[[str], str] = self._argon2.hash
        self._nobody = self._hash(secrets.token_urlsafe())

    async def hash(self, password: str, *, origin: str) -> str:
        """What is kept of a password. Raises MicaError if too many are hashed now."""
        release = self._places.take(f"from {origin}")
        try:
            async with self._running:
                return await asyncio.to_thread(self._hash, _normal(password))
        finally:
            release()

    async def matches(self, kept: str | None, password: str, *, origin: str) -> bool:
        """Whether a password is the one that was hashed; it takes as long if nothing is kept.

        Raises MicaError if too many are compared now.
        """
        release = self._places.take(f"from {origin}")
        try:
            async with self._running:
                same = await asyncio.to_thread(self._same, kept or self._nobody, _normal(password))
        finally:
            release()
        return same and kept is not None

    def outdated(self, kept: str) -> bool:
        """Whether a hash was made with other costs than are used now."""
        return self._argon2.check_needs_rehash(kept)

    def _same(self, kept: str, password: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return self._argon2.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False
