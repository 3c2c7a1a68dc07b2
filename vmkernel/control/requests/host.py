"""The host itself: who it is, its devices, its power."""

from __future__ import annotations

from typing import Any, ClassVar

from vmkernel.control.requests.base import ListRequest, Page, Request
from vmkernel.model import (
    ApiInfo,
    Device,
    HostCertificate,
    HostInfo,
    Operation,
    PowerAction,
    Record,
    Role,
)

__all__ = [
    "DevicePage",
    "GetApiInfo",
    "GetHost",
    "GetTlsIdentity",
    "ListDevices",
    "PowerHost",
    "RotateCertificate",
    "TlsIdentity",
]


class TlsIdentity(Record, frozen=True, kw_only=True):
    """What the API's TLS listener presents."""

    certificate_pem: bytes
    private_key_pem: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "TlsIdentity(…)"


class DevicePage(Page, frozen=True, kw_only=True):
    """A part of the physical devices, ordered by bus and address (`after` is `bus/address`)."""

    items: tuple[Device, ...]
    more: bool


class GetApiInfo(Request[ApiInfo], frozen=True, kw_only=True, tag="api.info"):
    """What anyone may know."""

    ROLE: ClassVar[Role | None] = None
    REPLY: ClassVar[Any] = ApiInfo
    READ_ONLY: ClassVar[bool] = True


class GetTlsIdentity(Request[TlsIdentity], frozen=True, kw_only=True, tag="api.tls"):
    """The API's certificate and key; no token, given to the peer on the socket alone."""

    ROLE: ClassVar[Role | None] = None
    REPLY: ClassVar[Any] = TlsIdentity
    READ_ONLY: ClassVar[bool] = True


class RotateCertificate(Request[HostCertificate], frozen=True, kw_only=True, tag="api.rotate"):
    """Replace the API's key and certificate by new ones, durably; whoever asks presents them."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = HostCertificate


class GetHost(Request[HostInfo], frozen=True, kw_only=True, tag="host.get"):
    """The host as a whole."""

    REPLY: ClassVar[Any] = HostInfo
    READ_ONLY: ClassVar[bool] = True


class ListDevices(ListRequest[DevicePage], frozen=True, kw_only=True, tag="host.devices"):
    """Physical PCI and USB devices."""

    REPLY: ClassVar[Any] = DevicePage


class PowerHost(Request[Operation], frozen=True, kw_only=True, tag="host.power"):
    """End the guests in order, then power off or reboot."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    REPLY: ClassVar[Any] = Operation

    action: PowerAction
