"""The scope of a field of a spec: when a change of it takes effect, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Change", "Scope"]


class Change(StrEnum):
    """When a change of a field takes effect."""

    HOST_ONLY = "host-only"
    """At once, in any state: the guest doesn't see it."""
    LIVE = "live"
    """At once, while the VM runs too, as far as the guest and the machine allow."""
    NEXT_START = "next-start"
    """It can be made at any time, and counts from the next start."""
    POWERED_OFF = "powered-off"
    """It is refused while the VM runs. A device can be removed and added again instead."""
    CREATION = "creation"
    """It is chosen when the VM is created, and never changes."""


@dataclass(frozen=True)
class Scope:
    """What the host does with a field."""

    change: Change
    guest: bool = True
    """False if it is the host's business alone: a revert to a snapshot leaves it as it is."""
    own: bool = False
    """True if it belongs to this one VM: a clone gets a value of its own."""
    first_start: bool = False
    """True if it is of use only at the guest's first start: a memory image has none of it."""
