"""Virtual machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from remote_api.client.sdk.base import CREATE, MERGE_PATCH, Calls
from remote_api.schema import CloneBody, VmBody, VmPage
from vmkernel.model import CloneSpec, Operation, Vm, VmSpec

__all__ = ["VmCalls"]


class VmCalls(Calls):
    """Virtual machines."""

    def vms(self) -> Iterator[Vm]:
        """All virtual machines."""
        return self._all("/v1/vms", VmPage)

    def vm(self, vm_id: str) -> Vm:
        """One virtual machine."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}").read(Vm)

    def create_vm(self, vm_id: str, spec: VmSpec) -> Vm:
        """Make a virtual machine."""
        return self.transport.send(
            "PUT", f"/v1/vms/{vm_id}", body=VmBody(spec=spec), headers=CREATE
        ).read(Vm)

    def create_saved_vm(self, vm_id: str, document: dict[str, Any]) -> Vm:
        """Create a VM from the body that `backup_vm` returned; its volumes must be there."""
        return self.transport.send("PUT", f"/v1/vms/{vm_id}", body=document, headers=CREATE).read(
            Vm
        )

    def replace_vm(self, vm: Vm, spec: VmSpec) -> Vm:
        """Replace the spec of a virtual machine that nobody else has changed since `vm`."""
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
        """Delete a stopped virtual machine."""
        self.transport.send("DELETE", f"/v1/vms/{vm_id}", parameters={"with_volumes": with_volumes})

    def clone_vm(self, vm_id: str, new_id: str, spec: CloneSpec | None = None) -> Operation:
        """Make a virtual machine of one that is off, of a template, or of a snapshot."""
        return self._operation(
            "POST", f"/v1/vms/{vm_id}/clone", body=CloneBody(id=new_id, spec=spec or CloneSpec())
        )

    def start_vm(self, vm_id: str) -> Operation:
        """Start a virtual machine."""
        return self._operation("POST", f"/v1/vms/{vm_id}/start")

    def shut_down_vm(self, vm_id: str, *, timeout_s: float = 120.0) -> Operation:
        """Ask the guest to shut down."""
        return self._operation("POST", f"/v1/vms/{vm_id}/shutdown", timeout_s=timeout_s)

    def power_off_vm(self, vm_id: str) -> Operation:
        """End a virtual machine at once."""
        return self._operation("POST", f"/v1/vms/{vm_id}/power-off")

    def reset_vm(self, vm_id: str) -> Operation:
        """Reset a virtual machine."""
        return self._operation("POST", f"/v1/vms/{vm_id}/reset")

    def pause_vm(self, vm_id: str) -> Operation:
        """Let a virtual machine stand still."""
        return self._operation("POST", f"/v1/vms/{vm_id}/pause")

    def resume_vm(self, vm_id: str) -> Operation:
        """Let a paused or suspended virtual machine go on."""
        return self._operation("POST", f"/v1/vms/{vm_id}/resume")

    def suspend_vm(self, vm_id: str) -> Operation:
        """Write a virtual machine's memory to disk and end it."""
        return self._operation("POST", f"/v1/vms/{vm_id}/suspend")

    def discard_vm_state(self, vm_id: str) -> Operation:
        """Throw the memory of a suspended virtual machine away."""
        return self._operation("POST", f"/v1/vms/{vm_id}/discard-state")

    def update_vm_secure_boot(self, vm_id: str) -> Operation:
        """Add the Secure Boot certificates that a stopped virtual machine lacks."""
        return self._operation("POST", f"/v1/vms/{vm_id}/update-secure-boot")
