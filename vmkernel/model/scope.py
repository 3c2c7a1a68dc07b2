"""The scope of a spec's field: when a change of it takes effect, and whom it concerns."""

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
    """A change is accepted at any time and takes effect at the next start."""
    POWERED_OFF = "powered-off"
    """Changes are refused while the VM runs. A device can be removed and added again instead."""
    CREATION = "creation"
    """It is set when the VM is created and can't be changed."""


@dataclass(frozen=True)
class Scope:
    """What the host does with a field."""

    change: Change
    guest: bool = True
    """False if only the host uses it: reverting to a snapshot leaves it unchanged."""
    own: bool = False
    """True if it is unique to this VM: a clone gets a new value."""
    first_start: bool = False
    """True if it is used only at the guest's first start: a memory image doesn't contain it."""
