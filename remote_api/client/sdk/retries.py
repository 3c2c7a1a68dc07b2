"""How often, and how long after it failed, a transfer is tried again."""

from __future__ import annotations

import time

__all__ = ["Retries"]

_RETRIES = 8
_LONGEST_PAUSE_S = 30.0
"""With the pause doubling from half a second on, eight retries outlast a restart of the host's API
and of most networks."""


class Retries:
    """Failures in a row, with a pause after each that doubles."""

    def __init__(self, pause_s: float = 0.5) -> None:
        self._first_pause_s = pause_s
        self._failures = 0

    def succeeded(self) -> None:
        """Data got through: count retries from the beginning."""
        self._failures = 0

    def failed(self) -> None:
        """Wait before the next try. Raises the error that is being handled after too many."""
        self._failures += 1
        if self._failures > _RETRIES:
            raise
        time.sleep(min(self._first_pause_s * 2 ** (self._failures - 1), _LONGEST_PAUSE_S))
