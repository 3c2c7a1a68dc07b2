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
    """Of every VM, by id."""
    vms: tuple[VmStatistics, ...]
    """Of those that have a QEMU, by id; not older than about a second."""


class GetVmStatistics(Request[VmStatistics], frozen=True, kw_only=True, tag="vm.statistics"):
    """One VM's figures."""

    READ_ONLY: ClassVar[bool] = True

    id: Slug


class GetHostStatistics(Request[HostStatistics], frozen=True, kw_only=True, tag="host.statistics"):
    """The host's figures."""

    READ_ONLY: ClassVar[bool] = True


class GetAllStatistics(
    Request[AllStatistics], frozen=True, kw_only=True, tag="host.all-statistics"
):
    """The figures of the host and of every VM."""

    READ_ONLY: ClassVar[bool] = True
