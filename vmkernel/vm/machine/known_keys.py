"""The last known state of a VM's Secure Boot keys, and when it was read."""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel.model import SecureBootStatus

__all__ = ["KnownKeys"]


@dataclass
class KnownKeys:
    """The outcome of the last look at its firmware variables."""

    status: SecureBootStatus | None = None
    seen_after: int | None = None
    """The last session with QEMU before that look; after another one, the guest may have changed
    them."""

    def unseen(self, session: int) -> bool:
        """True if no look followed this session."""
        return self.seen_after != session

    def begin_poll(self, session: int) -> None:
        """A look begins; it counts even if it fails, until the next session."""
        self.seen_after = session

    def note(self, status: SecureBootStatus | None) -> None:
        """The outcome of a look."""
        self.status = status

    def forget(self) -> None:
        """The VM has no Secure Boot."""
        self.status = None
