"""Limits events that a guest can cause at will: events are kept in one ring for the whole host, and
a guest that panics a thousand times a second would push all others out of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["EventRateLimit"]


@dataclass
class EventRateLimit:
    """Of one VM; owned by its task."""

    most: int = 10
    """Events of one type within a window."""
    window_s: float = 60.0
    _began_s: float = 0.0
    _told: Counter[str] = field(default_factory=Counter)
    _left_out: Counter[str] = field(default_factory=Counter)

    def admit(self, event_type: str, now_s: float) -> int | None:
        """How many of the type were left out since the last published one; None if this one is to
        be left out too.
        """
        if now_s - self._began_s >= self.window_s:
            self._began_s = now_s
            self._told.clear()
        if self._told[event_type] >= self.most:
            self._left_out[event_type] += 1
            return None
        self._told[event_type] += 1
        return self._left_out.pop(event_type, 0)
