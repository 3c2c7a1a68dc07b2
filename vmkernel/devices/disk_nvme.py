"""NVMe: each disk is a controller with one namespace."""

from __future__ import annotations

from vmkernel.devices.device import Board
from vmkernel.devices.disk import DiskBusKind, Unit
from vmkernel.devices.plan import Family
from vmkernel.devices.slots import PCI_DISKS_MAX

__all__ = ["KIND"]


def _unit(board: Board, unit: Unit) -> None:
    board.args.device(
        "nvme",
        id=unit.device_id,
        **board.slots.disk(unit.index),
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
    )


KIND = DiskBusKind(
    units_max=PCI_DISKS_MAX.__getitem__,
    cdroms=False,
    unit=_unit,
    pci=True,
    write_through=False,
    hot_plug=lambda family: family is Family.Q35,
)
