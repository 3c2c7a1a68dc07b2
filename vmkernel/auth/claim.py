"""The one-time claim code: shown on the console, typed by whoever stands before the machine.

Ten characters of Crockford's base 32 (no I, L, O, U) are 50 bits. Wrong codes cost time: after a
few free ones each further one is taken only after a wait that doubles up to a minute, for everybody
together, so that guessing needs millions of years and a typing error none.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

from vmkernel.model import ErrorCode, MicaError

__all__ = ["ClaimCode"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 10
_FREE_TRIES = 5
_LONGEST_WAIT_S = 60.0
_LOOKALIKES = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


class ClaimCode:
    """One code and the tries that were made at it."""

    def __init__(
        self, code: str | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        drawn = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        self._code = _normal(code) if code is not None else drawn
        self._monotonic = monotonic
        self._failures = 0
        self._not_before_s = 0.0

    @property
    def text(self) -> str:
        """The code as it is shown."""
        half = len(self._code) // 2
        return f"{self._code[:half]}-{self._code[half:]}"

    def check(self, code: str) -> None:
        """Return where the code is right; `rate-limited` or `unauthenticated` otherwise."""
        moment = self._monotonic()
        if moment < self._not_before_s:
            wait_s = int(self._not_before_s - moment) + 1
            raise MicaError(
                ErrorCode.RATE_LIMITED,
                f"Too many wrong claim codes were tried; try again in {wait_s} s.",
                retry_after_s=wait_s,
            )
        if hmac.compare_digest(_normal(code).encode(), self._code.encode()):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= _FREE_TRIES:
            doubling = min(self._failures - _FREE_TRIES, 10)
            self._not_before_s = moment + min(_LONGEST_WAIT_S, 2.0**doubling)
        raise MicaError(
            ErrorCode.UNAUTHENTICATED, "The claim code is wrong; the host's console shows it."
        )


def _normal(code: str) -> str:
    return code.upper().translate(_LOOKALIKES)
