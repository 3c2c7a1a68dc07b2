"""Which devices of a VM are leaving it, as this vmkernel knows it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

__all__ = ["Leaving"]


@dataclass
class Leaving:
    """Beside what the record of the run notes, which outlives a vmkernel."""

    awaited: set[str] = field(default_factory=set)
    """The keys of those that a request waits for."""
    refused: set[str] = field(default_factory=set)
    """Those that the guest last refused to release."""
    changing: int = 0
    """Changes of devices under way: the spec names what QEMU doesn't have yet."""
    look_planned: int | None = None
    """The session with QEMU in which a check is planned soon."""

    @contextlib.contextmanager
    def change(self, awaited: Collection[str]) -> Iterator[None]:
        """While devices are changed, and some are waited for to go."""
        self.changing += 1
        self.awaited |= set(awaited)
        try:
            yield
        finally:
            self.changing -= 1
            self.awaited -= set(awaited)
