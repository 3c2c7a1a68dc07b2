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
    poll_planned: int | None = None
    """The session with QEMU in which a check is planned soon."""

    def ask(self, key: str) -> None:
        """The guest is asked to let a device go, once more if it refused."""
        self.refused.discard(key)

    def refuse(self, key: str) -> None:
        """The guest keeps a device that it was asked for."""
        self.refused.add(key)

    def plan_poll(self, session: int) -> bool:
        """Plan a look in a session; False if there is one already."""
        planned, self.poll_planned = self.poll_planned, session
        return planned != session

    def begin_poll(self) -> None:
        """The planned look begins: another may be planned."""
        self.poll_planned = None

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
