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
