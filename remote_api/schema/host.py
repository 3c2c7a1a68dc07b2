"""The host: identity, hardware, boot, stick, findings."""

from __future__ import annotations

from vmkernel.model import Device, HostStatus, PowerAction, Record

__all__ = ["DevicePage", "Host", "PowerBody"]


class Host(Record, frozen=True, kw_only=True):
    """The host as a resource."""

    status: HostStatus


class DevicePage(Record, frozen=True, kw_only=True):
    """A part of the physical devices."""

    items: tuple[Device, ...]
    next: str | None
    """The `page` of the next part; null at the end."""


class PowerBody(Record, frozen=True, kw_only=True):
    """What to do with the host's power, once the guests have ended."""

    action: PowerAction
