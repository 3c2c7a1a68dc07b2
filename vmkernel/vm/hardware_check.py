"""Which hardware goes together: what a spec must satisfy beyond its types and the limits of the
disk buses. Pure; each problem names its field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmkernel.devices import DISK_BUSES, Family
from vmkernel.devices.memory import DIMM_STEP_BYTES, huge_page_bytes
from vmkernel.devices.processors import topology_of
from vmkernel.devices.watchdog import WATCHDOG_FAMILIES
from vmkernel.model import (
    CdromSpec,
    Clock,
    DiskCache,
    DiskLimits,
    DiskSpec,
    FieldProblem,
    Firmware,
    NicSpec,
    Rate,
    VmSpec,
)
from vmkernel.vm.spec_defaults import disk_bus_of

__all__ = ["CPUS_MAX", "duplicate_problems", "hardware_problems"]

CPUS_MAX = 255
"""More need an interrupt remapping unit in the guest."""

_MIB = 1 << 20


def hardware_problems(spec: VmSpec, family: Family) -> list[FieldProblem]:
    """Everything that doesn't fit together."""
    return [
        *_cpu_problems(spec),
        *_memory_problems(spec),
        *_firmware_problems(spec, family),
        *_disk_problems(spec),
        *_name_problems(spec),
        *_other_problems(spec, family),
    ]


def duplicate_problems(message: str, named: Iterable[tuple[str, object]]) -> Iterator[FieldProblem]:
    """A problem for each value that came before; `named` are pointers with values."""
    seen: set[object] = set()
    for pointer, value in named:
        if value in seen:
            yield FieldProblem(pointer=pointer, detail=message.format(value))
        seen.add(value)


def _cpu_problems(spec: VmSpec) -> Iterator[FieldProblem]:
    cpus, topology = spec.cpus, topology_of(spec.cpus)
    if cpus.max_count is not None and cpus.max_count < cpus.count:
        yield FieldProblem(
            pointer="/spec/cpus/max_count",
            detail=f"It must be at least `count`, {cpus.count}.",
        )
    elif topology.most > CPUS_MAX:
        which = "count" if cpus.max_count is None else "max_count"
        yield FieldProblem(
            pointer=f"/spec/cpus/{which}", detail=f"At most {CPUS_MAX} CPUs are possible."
        )
    elif not topology.fits:
        given = next((n for n in ("sockets", "cores", "threads") if getattr(cpus, n)), "count")
        yield FieldProblem(
            pointer=f"/spec/cpus/{given}",
            detail=f"{topology.sockets} sockets of {topology.cores} cores with {topology.threads}"
            f" threads are not {topology.most} CPUs: leave one of them out, or change the count.",
        )


def _memory_problems(spec: VmSpec) -> Iterator[FieldProblem]:
    memory, size = spec.memory, spec.memory_bytes
    if memory.max_bytes is not None:
        if memory.max_bytes < size:
            yield FieldProblem(
                pointer="/spec/memory/max_bytes", detail="It must be at least `memory_bytes`."
            )
        elif (memory.max_bytes - size) % DIMM_STEP_BYTES:
            yield FieldProblem(
                pointer="/spec/memory/max_bytes",
                detail="It must exceed `memory_bytes` by a multiple of"
                f" {DIMM_STEP_BYTES // _MIB} MiB, the size of what can be added.",
            )
    page = huge_page_bytes(memory.huge_pages)
    if page is not None and size % page:
        yield FieldProblem(
            pointer="/spec/memory_bytes",
            detail=f"It must be a multiple of its huge pages, {page // _MIB} MiB.",
        )
    if memory.target_bytes is not None:
        if not memory.balloon:
            yield FieldProblem(
                pointer="/spec/memory/target_bytes", detail="Without a balloon there is no target."
            )
        elif memory.target_bytes > size:
            yield FieldProblem(
                pointer="/spec/memory/target_bytes", detail="It can't exceed `memory_bytes`."
            )


def _firmware_problems(spec: VmSpec, family: Family) -> Iterator[FieldProblem]:
    if spec.firmware is Firmware.UEFI_SECURE_BOOT:
        if family is Family.PC:
            yield FieldProblem(
                pointer="/spec/firmware",
                detail="Secure Boot needs the chipset q35, which has no IDE: choose another bus.",
            )
        if spec.boot.kernel is not None:
            yield FieldProblem(
                pointer="/spec/boot/kernel",
                detail="Secure Boot starts only what Microsoft's keys have signed, which no kernel"
                " is by itself: boot from a disk, or choose another firmware.",
            )
    if spec.tpm and spec.firmware is Firmware.BIOS and spec.boot.kernel is not None:
        yield FieldProblem(
            pointer="/spec/tpm",
            detail="With BIOS, the TPM's log lies where a directly booted kernel finds its initrd:"
            " choose UEFI, or boot from a disk.",
        )


def _disk_problems(spec: VmSpec) -> Iterator[FieldProblem]:
    for index, disk in enumerate(spec.disks):
        bus = disk_bus_of(spec, disk)
        kind, pointer = DISK_BUSES[bus], f"/spec/disks/{index}"
        if disk.read_only and not kind.read_only:
            yield FieldProblem(
                pointer=f"{pointer}/read_only", detail=f"A disk on {bus} can't be read-only."
            )
        if disk.cache is DiskCache.WRITETHROUGH and not kind.write_through:
            yield FieldProblem(
                pointer=f"{pointer}/cache",
                detail=f"A disk on {bus} always has a write cache, which the guest flushes.",
            )
        if disk.limits is not None:
            yield from _limit_problems(f"{pointer}/limits", disk.limits)


def _limit_problems(pointer: str, limits: DiskLimits) -> Iterator[FieldProblem]:
    for kind in ("iops", "bytes"):
        parts = [f"{way}_{kind}" for way in ("read", "write")]
        if getattr(limits, kind) is not None:
            for name in parts:
                if getattr(limits, name) is not None:
                    yield FieldProblem(
                        pointer=f"{pointer}/{name}",
                        detail=f"Either a limit for all (`{kind}`) or one for each direction.",
                    )
        for name in (kind, *parts):
            rate: Rate | None = getattr(limits, name)
            if rate is not None and rate.burst_per_s is not None:
                if rate.burst_per_s < rate.per_s:
                    yield FieldProblem(
                        pointer=f"{pointer}/{name}/burst_per_s",
                        detail="A burst can't be slower than the limit, `per_s`.",
                    )
            elif rate is not None and rate.burst_s != 1:
                yield FieldProblem(
                    pointer=f"{pointer}/{name}/burst_s",
                    detail="Say how fast a burst may be (`burst_per_s`), or leave this out.",
                )


def _name_problems(spec: VmSpec) -> Iterator[FieldProblem]:
    kinds: tuple[tuple[str, tuple[DiskSpec | CdromSpec | NicSpec, ...]], ...] = (
        ("disks", spec.disks),
        ("cdroms", spec.cdroms),
        ("nics", spec.nics),
    )
    for kind, items in kinds:
        yield from duplicate_problems(
            "{} is named twice.",
            ((f"/spec/{kind}/{i}/key", item.key) for i, item in enumerate(items) if item.key),
        )
    yield from duplicate_problems(
        "The boot index {} is given twice.",
        (
            (f"/spec/{kind}/{i}/boot_index", item.boot_index)
            for kind, items in kinds
            for i, item in enumerate(items)
            if item.boot_index is not None
        ),
    )


def _other_problems(spec: VmSpec, family: Family) -> Iterator[FieldProblem]:
    if spec.watchdog is not None and family not in WATCHDOG_FAMILIES[spec.watchdog.model]:
        yield FieldProblem(
            pointer="/spec/watchdog/model",
            detail=f"This VM's machine ({family}) has no {spec.watchdog.model}: take i6300esb.",
        )
    if spec.clock.utc_offset_minutes is not None and spec.clock.base is Clock.UTC:
        yield FieldProblem(
            pointer="/spec/clock/utc_offset_minutes", detail="A clock in UTC has no offset."
        )
