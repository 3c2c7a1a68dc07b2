"""What the agent in a guest says of it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Timestamp, WireModel

__all__ = ["AgentInterface", "AgentStatus", "GuestSystem"]


class AgentInterface(WireModel, frozen=True, kw_only=True):
    """A network interface as the guest sees it."""

    name: str
    mac: str | None = None
    addresses: Annotated[
        tuple[str, ...], Meta(description="With prefix lengths, such as `192.0.2.7/24`.")
    ] = ()


class GuestSystem(WireModel, frozen=True, kw_only=True):
    """The guest's operating system, in the words of its os-release."""

    id: str = ""
    name: str = ""
    version: str = ""
    kernel: str = ""


class AgentStatus(WireModel, frozen=True, kw_only=True):
    """The guest agent, in the guest's own words. That there is none is normal."""

    connected: Annotated[
        bool, Meta(description="True while a program in the guest has the channel open.")
    ]
    checked_at: Annotated[Timestamp | None, Meta(description="When the rest was asked.")] = None
    reason: Annotated[
        str | None, Meta(description="Why an agent that is connected tells nothing.")
    ] = None
    version: str | None = None
    hostname: str | None = None
    system: GuestSystem | None = None
    interfaces: tuple[AgentInterface, ...] = ()
    frozen: Annotated[
        bool, Meta(description="True while its file systems are held still, for a snapshot.")
    ] = False
