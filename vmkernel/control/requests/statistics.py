"""What virtual machines and the host use."""

from __future__ import annotations

from typing import ClassVar

from vmkernel.control.requests.base import Request
from vmkernel.model import HostStatistics, Record, Slug, VmState, VmStatistics

__all__ = ["AllStatistics", "GetAllStatistics", "GetHostStatistics", "GetVmStatistics"]


class AllStatistics(Record, frozen=True, kw_only=True):
    """Everything at once, for monitoring."""

    host: HostStatistics
    states: dict[str, VmState]
    """The state of every VM, by id."""
    vms: tuple[VmStatistics, ...]
    """The VMs with a QEMU process, by id; at most about a second old."""


class GetVmStatistics(Request[VmStatistics], frozen=True, kw_only=True, tag="vm.statistics"):
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class GetHostStatistics(Request[HostStatistics], frozen=True, kw_only=True, tag="host.statistics"):
    READ_ONLY: ClassVar[bool] = True


class GetAllStatistics(
    Request[AllStatistics], frozen=True, kw_only=True, tag="host.all-statistics"
):
    """The figures of the host and of every VM."""

    READ_ONLY: ClassVar[bool] = True
