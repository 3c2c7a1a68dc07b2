"""A number of places for things that last, of which each actor may take a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vmkernel.model import ErrorCode, MicaError

__all__ = ["Places"]

_RETRY_S = 5


class Places:
    """Counts by actor; owned by the event loop's thread."""

    def __init__(self, what: str, *, total: int, each: int) -> None:
        """`what` names them in messages, in the plural, with what they are doing."""
        self._what = what
        self._total = total
        self._each = each
        self._taken: Counter[str] = Counter()

    def check(self, actor: str) -> None:
        """Raise `rate-limited` if the actor has its part, `unavailable` if all are taken."""
        if self._taken[actor] >= self._each:
            raise MicaError(
                ErrorCode.RATE_LIMITED,
                f"{self._each} {self._what} for the token {actor} already; wait until one ends,"
                " or end one.",
                retry_after_s=_RETRY_S,
            )
        if self._taken.total() >= self._total:
            raise MicaError(
                ErrorCode.UNAVAILABLE,
                f"{self._total} {self._what} already; try again in a moment.",
                retry_after_s=_RETRY_S,
            )

    def take(self, actor: str) -> Callable[[], None]:
        """Occupy a place; call the result to free it (once). Raises as `check` does."""
        self.check(actor)
        return self.count(actor)

    def count(self, actor: str) -> Callable[[], None]:
        """The same for work that exists already and can't be refused."""
        self._taken[actor] += 1
        taken = True

        def release() -> None:
            nonlocal taken
            if taken:
                taken = False
                self._taken[actor] -= 1
                if not self._taken[actor]:
                    del self._taken[actor]

        return release
