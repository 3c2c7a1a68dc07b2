"""Clones of virtual machines."""

from __future__ import annotations

from typing import ClassVar

from vmkernel.control.requests.base import Request
from vmkernel.model import CloneSpec, Operation, Role, Slug

__all__ = ["CloneVm"]


class CloneVm(Request[Operation], frozen=True, kw_only=True, tag="vm.clone"):
    """Make the VM `id` from another one, which must be off or a template."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    source: Slug
    id: Slug
    spec: CloneSpec = CloneSpec()
