"""The one-time claim code: shown on the console, typed by a user who can read that.

Ten characters of Crockford's base 32 (no I, L, O, U) are 50 bits: at 1,000 guesses a second they
take 17,000 years, so the right code is always accepted, whatever others have tried. Wrong ones are
answered `rate-limited` after a few from one origin, with a wait that doubles up to a minute.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vmkernel.auth.origins import network_of
from vmkernel.model import ErrorCode, MicaError

__all__ = ["ClaimCode"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 10
_FREE_TRIES = 5
_LONGEST_WAIT_S = 60.0
_ORIGINS = 1024
"""How many origins are remembered, the least recent ones forgotten first; 200 bytes each."""
_LOOKALIKES = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


@dataclass
class _Tries:
    """Wrong codes from one origin."""

    failures: int = 0
    not_before_s: float = 0.0


class ClaimCode:
    """One code and the tries that were made at it."""

    def __init__(
        self, code: str | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        drawn = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        self._code = _normal(code) if code is not None else drawn
        self._monotonic = monotonic
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    @property
    def text(self) -> str:
        """The code as it is shown."""
        half = len(self._code) // 2
        return f"{self._code[:half]}-{self._code[half:]}"

    def check(self, code: str, origin: str = "") -> None:
        """Return if the code is right; else `rate-limited` or `unauthenticated`."""
        if hmac.compare_digest(_normal(code).encode(), self._code.encode()):
            self._tries.clear()
            return
        moment_s = self._monotonic()
        source = network_of(origin)
        tries = self._tries.pop(source, None) or _Tries()
        self._tries[source] = tries
        if len(self._tries) > _ORIGINS:
            self._tries.popitem(last=False)
        if moment_s < tries.not_before_s:
            wait_s = int(tries.not_before_s - moment_s) + 1
            raise MicaError(
                ErrorCode.RATE_LIMITED,
                "The claim code is wrong; the host's console shows it. After several wrong "
                "codes, try again in {wait_s} s.",
                retry_after_s=wait_s,
            )
        tries.failures += 1
        if tries.failures >= _FREE_TRIES:
            doubling = min(tries.failures - _FREE_TRIES, 10)
            tries.not_before_s = moment_s + min(_LONGEST_WAIT_S, 2.0**doubling)
        raise MicaError(
            ErrorCode.UNAUTHENTICATED, "The claim code is wrong; the host's console shows it."
        )


def _normal(code: str) -> str:
    return code.upper().translate(_LOOKALIKES)
