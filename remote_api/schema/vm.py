"""Virtual machines: what is wanted (spec) and what is observed (status)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import ObjectBody
from vmkernel.model import (
    MachineState,
    Record,
    VmSpec,
)

__all__ = ["DeleteVmQuery", "ShutdownQuery", "VmBody"]


class VmBody(ObjectBody, frozen=True, kw_only=True):
    """A virtual machine to create, or its complete new spec."""

    spec: VmSpec
    machine: MachineState | None = None
    """Only when creating: makes a saved VM the same machine again."""


class DeleteVmQuery(Record, frozen=True, kw_only=True):
    """What goes with the VM."""

    with_volumes: bool = False
    """Delete the volumes that its spec names as well."""


class ShutdownQuery(Record, frozen=True, kw_only=True):
    """How long a shutdown may take."""

    wait: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """Seconds to wait for the work to finish."""
    timeout_s: Annotated[float, Meta(ge=1, le=3600)] = 120.0
    """Seconds until the operation fails; the guest is not forced."""
