"""The host: identity, hardware, boot, stick, findings."""

from __future__ import annotations

from vmkernel.model import HostStatus, PowerAction, Record

__all__ = ["Host", "PowerBody"]


class Host(Record, frozen=True, kw_only=True):
    """The host as a resource."""

    status: HostStatus


class PowerBody(Record, frozen=True, kw_only=True):
    """What to do with the host's power, once the guests have ended."""

    action: PowerAction
