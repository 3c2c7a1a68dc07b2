"""What the platform needs from the rest of the vmkernel, as one value given after the start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vmkernel.events import EventBus
from vmkernel.model import Finding
from vmkernel.operations import OperationRegistry
from vmkernel.platform.power import Guests
from vmkernel.state import StateStore

__all__ = ["PlatformContext"]


@dataclass(frozen=True)
class PlatformContext:
    """The rest, as the platform sees it."""

    store: StateStore
    events: EventBus
    operations: OperationRegistry
    claim_code: Callable[[], str | None]
    """None once the host is claimed."""
    findings: Callable[[], Iterable[Finding]]
    """Of everything but the platform itself."""
    guests: Guests | None = None
    accelerator: Callable[[], str | None] = lambda: None
    """What VMs really run with, if that has been tried: `kvm` or `tcg`."""
    accelerator_reason: Callable[[], str | None] = lambda: None
    """Why that isn't KVM, if it isn't."""
