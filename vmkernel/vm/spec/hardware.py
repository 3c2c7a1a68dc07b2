"""Which hardware goes together: what a spec must satisfy beyond its types. Each kind of device
checks its own fields (`check` in vmkernel/devices); checks of several kinds, or of none, are here.
Pure; each problem names its field.
"""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.devices import DEVICES, Family
from vmkernel.devices.device import duplicate_problems
from vmkernel.model import (
    CdromSpec,
    Clock,
    DiskSpec,
    FieldError,
    Firmware,
    NicSpec,
    VmSpec,
)

__all__ = ["hardware_problems"]


def hardware_problems(spec: VmSpec, family: Family) -> list[FieldError]:
    """Everything that doesn't fit together."""
    return [
        *(problem for device in DEVICES for problem in device.check(spec, family)),
        *_firmware_problems(spec, family),
        *_name_problems(spec),
        *_other_problems(spec),
    ]


def _firmware_problems(spec: VmSpec, family: Family) -> Iterator[FieldError]:
    if spec.firmware is Firmware.UEFI_SECURE_BOOT:
        if family is Family.PC:
            yield FieldError(
                pointer="/spec/firmware",
                detail="Secure Boot needs the chipset q35, which has no IDE: choose another bus.",
            )
        if spec.boot.kernel is not None:
            yield FieldError(
                pointer="/spec/boot/kernel",
                detail="With Secure Boot, a kernel can't be booted directly, because it "
                "isn't signed by Microsoft: boot from a disk, or choose another firmware.",
            )


def _name_problems(spec: VmSpec) -> Iterator[FieldError]:
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


def _other_problems(spec: VmSpec) -> Iterator[FieldError]:
    if spec.clock.utc_offset_minutes is not None and spec.clock.base is Clock.UTC:
        yield FieldError(
            pointer="/spec/clock/utc_offset_minutes", detail="A clock in UTC has no offset."
        )
    yield from duplicate_problems(
        "{} is named twice.",
        ((f"/spec/boot/order/{i}", d.value) for i, d in enumerate(spec.boot.order)),
    )
