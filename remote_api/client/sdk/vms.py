"""VMs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

from remote_api.client.sdk.base import CREATE, MERGE_PATCH, Calls
from remote_api.client.sdk.queries import VmListQuery
from remote_api.schema import (
    CloneBody,
    PageOf,
    VmBody,
)
from vmkernel.model import CloneSpec, Operation, Vm, VmSpec

__all__ = ["VmCalls"]


class VmCalls(Calls):
    """VMs."""

    def vms(self, **query: Unpack[VmListQuery]) -> Iterator[Vm]:
        """All VMs."""
        return self._all("/v1/vms", PageOf[Vm], query)

    def vm(self, vm_id: str) -> Vm:
        """One VM."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}").read(Vm)

    def create_vm(self, vm_id: str, spec: VmSpec) -> Vm:
        """Create a VM."""
        return self.transport.send(
            "PUT", f"/v1/vms/{vm_id}", body=VmBody(spec=spec), headers=CREATE
        ).read(Vm)

    def create_saved_vm(self, vm_id: str, document: dict[str, Any]) -> Vm:
        """Create a VM from the body that `backup_vm` returned; its volumes must be there."""
        return self.transport.send("PUT", f"/v1/vms/{vm_id}", body=document, headers=CREATE).read(
            Vm
        )

    def replace_vm(self, vm: Vm, spec: VmSpec) -> Vm:
        """Replace the spec of a VM that was not changed since `vm` was read."""
        return self.transport.send(
            "PUT",
            f"/v1/vms/{vm.id}",
            body=VmBody(spec=spec),
            headers={"if-match": f'"{vm.revision}"'},
        ).read(Vm)

    def patch_vm(self, vm_id: str, patch: dict[str, Any], *, revision: int | None = None) -> Vm:
        """Merge a patch of the spec (RFC 7396)."""
        headers = dict(MERGE_PATCH)
        if revision is not None:
            headers["if-match"] = f'"{revision}"'
        return self.transport.send(
            "PATCH", f"/v1/vms/{vm_id}", body={"spec": patch}, headers=headers
        ).read(Vm)

    def delete_vm(self, vm_id: str, *, with_volumes: bool = False) -> None:
        """Delete a stopped VM."""
        self.transport.send("DELETE", f"/v1/vms/{vm_id}", parameters={"with_volumes": with_volumes})

    def clone_vm(self, vm_id: str, new_id: str, spec: CloneSpec | None = None) -> Operation:
        """Clone a stopped VM, a template or a snapshot."""
        return self._operation(
            "POST", f"/v1/vms/{vm_id}/clone", body=CloneBody(id=new_id, spec=spec or CloneSpec())
        )

    def start_vm(self, vm_id: str) -> Operation:
        """Start a VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/start")

    def shut_down_vm(self, vm_id: str, *, timeout_s: float = 120.0) -> Operation:
        """Ask the guest to shut down."""
        return self._operation("POST", f"/v1/vms/{vm_id}/shutdown", timeout_s=timeout_s)

    def power_off_vm(self, vm_id: str) -> Operation:
        """Power off a VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/power-off")

    def reset_vm(self, vm_id: str) -> Operation:
        """Reset a VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/reset")

    def pause_vm(self, vm_id: str) -> Operation:
        """Pause a VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/pause")

    def resume_vm(self, vm_id: str) -> Operation:
        """Resume a paused or suspended VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/resume")

    def suspend_vm(self, vm_id: str) -> Operation:
        """Suspend a VM to disk."""
        return self._operation("POST", f"/v1/vms/{vm_id}/suspend")

    def discard_vm_state(self, vm_id: str) -> Operation:
        """Discard the saved memory of a suspended VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/discard-state")

    def update_vm_secure_boot(self, vm_id: str) -> Operation:
        """Add missing Secure Boot certificates to a stopped VM."""
        return self._operation("POST", f"/v1/vms/{vm_id}/update-secure-boot")
