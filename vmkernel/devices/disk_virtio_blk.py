"""virtio-blk: the plain fast disk; each is a PCI device."""

from __future__ import annotations

from vmkernel.devices.device import Board
from vmkernel.devices.disk import IOTHREAD, DiskBusKind, Unit
from vmkernel.devices.plan import Family
from vmkernel.devices.slots import PCI_DISKS_MAX

__all__ = ["KIND"]


def _unit(board: Board, unit: Unit) -> None:
    board.args.device(
        "virtio-blk-pci",
        id=unit.device_id,
        **board.slots.disk(unit.index),
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
        iothread=IOTHREAD,
        write_cache=unit.write_cache_word,
        werror=unit.on_write_error,
        discard=unit.discard,
        write_zeroes=unit.discard,
    )


KIND = DiskBusKind(
    units_max=PCI_DISKS_MAX.__getitem__,
    cdroms=False,
    unit=_unit,
    pci=True,
    hot_plug=lambda family: family is Family.Q35,
)
