"""What a guest's agent reports. The guest controls all of it: it is bounded, cleaned of control
characters, and used only for display.
"""

from __future__ import annotations

from vmkernel.model.base import Record, Timestamp

__all__ = ["AgentInterface", "AgentStatus", "GuestSystem"]


class AgentInterface(Record, frozen=True, kw_only=True):
    """A network interface as the guest sees it."""

    name: str
    mac: str | None = None
    addresses: tuple[str, ...] = ()
    """With prefix lengths, such as `192.0.2.7/24`."""


class GuestSystem(Record, frozen=True, kw_only=True):
    """The guest's operating system, as its os-release says."""

    id: str = ""
    name: str = ""
    version: str = ""
    kernel: str = ""


class AgentStatus(Record, frozen=True, kw_only=True):
    """The guest agent, as it reports itself. Guests without an agent are normal."""

    connected: bool
    """True while a program in the guest has the channel open."""
    checked_at: Timestamp | None = None
    """When the other fields were read."""
    reason: str | None = None
    """Why a connected agent reports nothing."""
    version: str | None = None
    hostname: str | None = None
    system: GuestSystem | None = None
    interfaces: tuple[AgentInterface, ...] = ()
    frozen: bool = False
    """True while the guest's file systems are frozen for a snapshot."""
