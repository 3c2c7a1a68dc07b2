"""virtio-blk: the plain fast disk; each is a PCI device of its own."""

from __future__ import annotations

from vmkernel.devices.disk import IOTHREAD, Board, DiskBusKind, Unit
from vmkernel.devices.slots import PCI_DISKS_MAX

__all__ = ["KIND"]


def _unit(board: Board, unit: Unit) -> None:
    board.args.device(
        "virtio-blk-pci",
        id=unit.device_id,
        **board.slots.disk(),
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
        iothread=IOTHREAD,
        write_cache="on",
        discard=True,
        write_zeroes=True,
    )


KIND = DiskBusKind(
    units_max=PCI_DISKS_MAX.__getitem__,
    cdroms=False,
    iothread=True,
    unit=_unit,
    pci=True,
)
