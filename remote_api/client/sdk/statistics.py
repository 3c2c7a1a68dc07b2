"""What virtual machines and the host use."""

from __future__ import annotations

from remote_api.client.sdk.base import Calls
from vmkernel.model import HostStatistics, VmStatistics

__all__ = ["StatisticsCalls"]


class StatisticsCalls(Calls):
    """What virtual machines and the host use."""

    def vm_statistics(self, vm_id: str) -> VmStatistics:
        """The figures of one virtual machine; two of them make rates (see client/rates.py)."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}/stats").read(VmStatistics)

    def host_statistics(self) -> HostStatistics:
        """The figures of the host."""
        return self.transport.send("GET", "/v1/host/stats").read(HostStatistics)

    def metrics(self) -> str:
        """The figures of the host and of all virtual machines in Prometheus' text format."""
        return self.transport.send("GET", "/metrics").body.decode()
