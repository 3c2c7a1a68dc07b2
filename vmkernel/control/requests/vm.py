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
    """All VMs."""

    LISTING: ClassVar[Listing] = VM_LISTING


class GetVm(Request[Vm], frozen=True, kw_only=True, tag="vm.get"):
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateVm(Request[Vm], frozen=True, kw_only=True, tag="vm.create"):
    """Create a VM; the id must be new."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: VmSpec
    machine: MachineState | None = None
    """The identity of a saved VM: machine type, UUID, firmware variables, TPM state."""


class UpdateVm(Request[Vm], frozen=True, kw_only=True, tag="vm.update"):
    """Replace a VM's spec if `revision` is still the current one."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: VmSpec
    revision: int


class DeleteVm(Request[Done], frozen=True, kw_only=True, tag="vm.delete"):
    """Delete a VM that is off; its volumes are kept unless `with_volumes` is set."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    revision: int | None = None
    with_volumes: bool = False


class ActOnVm(Request[Operation], frozen=True, kw_only=True, tag="vm.act"):
    """Start, stop, pause, resume, suspend or reset a VM."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    action: VmAction
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    """How long a shutdown may take before the operation fails; nothing is forced."""
