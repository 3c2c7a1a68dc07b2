"""Processors: their number, topology and model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Accelerator, Family, MachinePlan
from vmkernel.model import CpuSpec, FieldError, GuestOs, VmSpec

__all__ = ["CPUS_MAX", "HOST_MODEL", "PROCESSORS", "Topology", "topology_of"]

CPUS_MAX = 255
"""More need an interrupt remapping unit in the guest."""

HOST_MODEL = "host"
"""The host's own processor; without KVM, all that QEMU can emulate."""

_HYPERV = (
    "hv-relaxed",
    "hv-vapic",
    "hv-spinlocks=0x1fff",
    "hv-time",
    "hv-vpindex",
    "hv-runtime",
    "hv-synic",
    "hv-stimer",
    "hv-reset",
    "hv-frequencies",
    "hv-tlbflush",
    "hv-ipi",
)
"""What Windows uses of Hyper-V's interfaces (QEMU: docs/system/i386/hyperv.rst).

QEMU refuses to start if one lacks what it depends on: hv-stimer hv-time and hv-synic, and those and
hv-ipi and hv-tlbflush hv-vpindex. With TCG they would be ignored, so only KVM proves the list.
"""


@dataclass(frozen=True)
class Topology:
    """How the most processors that a VM may have are arranged."""

    most: int
    sockets: int
    cores: int
    threads: int

    @property
    def fits(self) -> bool:
        """True if the product is the number of vCPUs."""
        return self.sockets * self.cores * self.threads == self.most


def topology_of(cpus: CpuSpec) -> Topology:
    """The given values, and as few sockets as needed; the result need not fit.

    vCPUs to be added later get separate sockets: operating systems expect new CPUs only there, as
    on real machines.
    """
    most = cpus.max_count or cpus.count
    threads = cpus.threads or 1
    if cpus.cores is not None:
        cores = cpus.cores
        sockets = cpus.sockets or max(1, most // (cores * threads))
    elif cpus.sockets is not None:
        sockets = cpus.sockets
        cores = max(1, most // (sockets * threads))
    else:
        present = cpus.count if most % cpus.count == 0 else threads
        cores = max(1, present // threads)
        sockets = max(1, most // (cores * threads))
    return Topology(most, sockets, cores, threads)


def _add(board: Board, plan: MachinePlan) -> None:
    """`-cpu` and `-smp`. A named model is had whole or, with KVM, the VM doesn't start."""
    args, cpus = board.args, plan.spec.cpus
    kvm = plan.accelerator is Accelerator.KVM
    words = [cpus.model]
    if cpus.model == HOST_MODEL:
        words = ["host" if kvm else "max"]
    elif kvm:
        words.append("enforce")
    if kvm and plan.spec.guest_os is GuestOs.WINDOWS:
        words += _HYPERV
    args.text("cpu", ",".join(words))
    topology = topology_of(cpus)
    args.keyval(
        "smp",
        cpus=cpus.count,
        maxcpus=topology.most if topology.most > cpus.count else None,
        sockets=topology.sockets,
        cores=topology.cores,
        threads=topology.threads,
    )


def _check(spec: VmSpec, _family: Family) -> Iterator[FieldError]:
    cpus, topology = spec.cpus, topology_of(spec.cpus)
    if cpus.max_count is not None and cpus.max_count < cpus.count:
        yield FieldError(
            pointer="/spec/cpus/max_count",
            detail=f"It must be at least `count`, {cpus.count}.",
        )
    elif topology.most > CPUS_MAX:
        which = "count" if cpus.max_count is None else "max_count"
        yield FieldError(
            pointer=f"/spec/cpus/{which}", detail=f"At most {CPUS_MAX} CPUs are possible."
        )
    elif not topology.fits:
        given = next((n for n in ("sockets", "cores", "threads") if getattr(cpus, n)), "count")
        yield FieldError(
            pointer=f"/spec/cpus/{given}",
            detail=f"{topology.sockets} sockets of {topology.cores} cores with {topology.threads}"
            f" threads are not {topology.most} CPUs: leave one of them out, or change the count.",
        )


PROCESSORS = Device(add=_add, check=_check)
