"""The host, its devices and its power."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from remote_api.client.sdk.base import Calls
from remote_api.client.sdk.queries import DeviceListQuery, DiskListQuery
from remote_api.schema import (
    Host,
    PageOf,
    PowerBody,
)
from vmkernel.model import ApiInfo, Device, Disk, HostCertificate, Operation, PowerAction

__all__ = ["HostCalls"]


class HostCalls(Calls):
    """The host, its devices and its power."""

    def api(self) -> ApiInfo:
        """What the host shows without a token."""
        return self.transport.send("GET", "/v1").read(ApiInfo)

    def host(self) -> Host:
        """The host."""
        return self.transport.send("GET", "/v1/host").read(Host)

    def devices(self, **query: Unpack[DeviceListQuery]) -> Iterator[Device]:
        """All PCI and USB devices."""
        return self._all("/v1/host/devices", PageOf[Device], query)

    def disks(self, **query: Unpack[DiskListQuery]) -> Iterator[Disk]:
        """All disks of the host."""
        return self._all("/v1/host/disks", PageOf[Disk], query)

    def rotate_certificate(self) -> HostCertificate:
        """Replace the API's key and certificate; this client trusts the new one from then on."""
        path = "/v1/host/certificate/rotate"
        certificate = self.transport.send("POST", path).read(HostCertificate)
        self.transport.trust(certificate.fingerprint_sha256)
        return certificate

    def power(self, action: PowerAction) -> Operation:
        """Stop the guests in order, then power off or reboot the host."""
        return self._operation("POST", "/v1/host/power", body=PowerBody(action=action))
