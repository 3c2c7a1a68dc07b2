"""The host itself: who it is, its devices, its power."""

from __future__ import annotations

from typing import ClassVar

from vmkernel.control.requests.base import ListRequest, Request
from vmkernel.model import (
    DEVICE_LISTING,
    ApiInfo,
    HostCertificate,
    HostStatus,
    Listing,
    Operation,
    PowerAction,
    Record,
    Role,
)

__all__ = [
    "GetApiInfo",
    "GetHost",
    "GetTlsIdentity",
    "ListDevices",
    "PowerHost",
    "RotateCertificate",
    "TlsIdentity",
]


class TlsIdentity(Record, frozen=True, kw_only=True):
    """The certificate and key of the API's TLS listener."""

    certificate_pem: bytes
    private_key_pem: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "TlsIdentity(…)"


class GetApiInfo(Request[ApiInfo], frozen=True, kw_only=True, tag="api.info"):
    ROLE: ClassVar[Role | None] = None
    READ_ONLY: ClassVar[bool] = True


class GetTlsIdentity(Request[TlsIdentity], frozen=True, kw_only=True, tag="api.tls"):
    """The API's certificate and key; needs no token, and is sent only over the socket."""

    ROLE: ClassVar[Role | None] = None
    READ_ONLY: ClassVar[bool] = True


class RotateCertificate(Request[HostCertificate], frozen=True, kw_only=True, tag="api.rotate"):
    """Replace the API's key and certificate, durably; the caller then presents them."""

    ROLE: ClassVar[Role | None] = Role.ADMIN


class GetHost(Request[HostStatus], frozen=True, kw_only=True, tag="host.get"):
    READ_ONLY: ClassVar[bool] = True


class ListDevices(ListRequest, frozen=True, kw_only=True, tag="host.devices"):
    """Physical PCI and USB devices."""

    LISTING: ClassVar[Listing] = DEVICE_LISTING


class PowerHost(Request[Operation], frozen=True, kw_only=True, tag="host.power"):
    """Stop the guests in order, then power off or reboot the host."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    action: PowerAction
