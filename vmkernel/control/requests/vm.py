"""Virtual machines."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import Done, ListRequest, Request
from vmkernel.model import (
    VM_LISTING,
    Listing,
    MachineState,
    Operation,
    Role,
    Slug,
    Vm,
    VmAction,
    VmSpec,
)

__all__ = [
    "ActOnVm",
    "CreateVm",
    "DeleteVm",
    "GetVm",
    "ListVms",
    "UpdateVm",
]


class ListVms(ListRequest, frozen=True, kw_only=True, tag="vm.list"):
    """All virtual machines."""

    LISTING: ClassVar[Listing] = VM_LISTING


class GetVm(Request[Vm], frozen=True, kw_only=True, tag="vm.get"):
    """One virtual machine."""

    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateVm(Request[Vm], frozen=True, kw_only=True, tag="vm.create"):
    """Make a virtual machine; the id must be new."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: VmSpec
    machine: MachineState | None = None
    """What a saved VM brings with it: machine type, UUID, firmware variables, TPM state."""


class UpdateVm(Request[Vm], frozen=True, kw_only=True, tag="vm.update"):
    """Replace a VM's spec where `revision` is still the present one."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: VmSpec
    revision: int


class DeleteVm(Request[Done], frozen=True, kw_only=True, tag="vm.delete"):
    """Delete a stopped VM; its volumes stay unless `with_volumes`."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    revision: int | None = None
    with_volumes: bool = False


class ActOnVm(Request[Operation], frozen=True, kw_only=True, tag="vm.act"):
    """Start, end, pause, suspend or reset a VM, or let it go on."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    action: VmAction
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    """How long a shutdown may take before the operation fails (nothing is forced)."""
