"""A wished spec, seen beside the host and the other VMs: what it leaves open is filled in, what it
names must be there and free."""

from __future__ import annotations

from vmkernel.model import VmSpec
from vmkernel.vm.context import VmContext
from vmkernel.vm.reservations import Reservations
from vmkernel.vm.spec import validation

__all__ = ["SpecReview"]


class SpecReview:
    """For all VMs of a host."""

    def __init__(self, host: VmContext, reservations: Reservations) -> None:
        self._host = host
        self._reservations = reservations

    def complete(self, vm_id: str, spec: VmSpec, previous: VmSpec | None = None) -> VmSpec:
        """See validation.completed; secrets that were only shown concealed stay as they are."""
        if spec.cloud_init is not None:
            from vmkernel.vm.spec.cloud_init.secrets import revealed

            spec = revealed(spec, previous)
        return validation.completed(
            spec,
            macs=self._reservations.macs(vm_id),
            cids=self._reservations.cids(vm_id),
            previous=previous,
            host_macs=self._host.network.host_macs() if spec.nics else (),
        )

    def check_references(self, vm_id: str, spec: VmSpec) -> None:
        """See validation.check_references."""
        validation.check_references(
            vm_id,
            spec,
            storage=self._host.storage,
            vm_of_volume=lambda volume: next(
                (vm for vm in self._reservations.vms_of_volume(volume) if vm != vm_id), None
            ),
            port_groups=self._host.network.port_groups(),
        )
