"""What the agent in a guest says of it. All of it is the guest's own word: bounded, cleaned of
control characters, and trusted for nothing but showing."""

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
    """The guest's operating system, in the words of its os-release."""

    id: str = ""
    name: str = ""
    version: str = ""
    kernel: str = ""


class AgentStatus(Record, frozen=True, kw_only=True):
    """The guest agent, in the guest's own words. That there is none is normal."""

    connected: bool
    """True while a program in the guest has the channel open."""
    checked_at: Timestamp | None = None
    """When the rest was asked."""
    reason: str | None = None
    """Why a connected agent reports nothing."""
    version: str | None = None
    hostname: str | None = None
    system: GuestSystem | None = None
    interfaces: tuple[AgentInterface, ...] = ()
    frozen: bool = False
    """True while its file systems are held still, for a snapshot."""
