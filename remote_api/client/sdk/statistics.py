"""Resource usage of VMs and the host."""

from __future__ import annotations

from remote_api.client.sdk.base import Calls
from vmkernel.model import HostStatistics, VmStatistics

__all__ = ["StatisticsCalls"]


class StatisticsCalls(Calls):
    """Resource usage of VMs and the host."""

    def vm_statistics(self, vm_id: str) -> VmStatistics:
        """The counters of a VM; two readings give rates (see cli/rates.py)."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}/stats").read(VmStatistics)

    def host_statistics(self) -> HostStatistics:
        """The counters of the host."""
        return self.transport.send("GET", "/v1/host/stats").read(HostStatistics)

    def metrics(self) -> str:
        """The metrics of the host and all VMs in the Prometheus text format."""
        return self.transport.send("GET", "/metrics").body.decode()
