"""virtio-scsi: many disks and CD-ROMs on one controller."""

from __future__ import annotations

from vmkernel.devices.device import Board
from vmkernel.devices.disk import IOTHREAD, DiskBusKind, Unit
from vmkernel.devices.plan import Family

__all__ = ["KIND"]

_UNITS_MAX = 64
_PLACE = {Family.Q35: "0x6", Family.PC: "0x6"}
_CDROM_TARGET = 64


def _controllers(board: Board) -> None:
    board.args.device("virtio-scsi-pci", id="scsi", **board.slots.at(_PLACE), iothread=IOTHREAD)


def _unit(board: Board, unit: Unit) -> None:
    board.args.device(
        "scsi-cd" if unit.cdrom else "scsi-hd",
        {} if unit.serial is None else {"device_id": unit.serial},
        id=unit.device_id,
        bus="scsi.0",
        scsi_id=_CDROM_TARGET + unit.index if unit.cdrom else unit.index,
        lun=0,
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
        write_cache=unit.write_cache_word,
        werror=unit.on_write_error,
    )


KIND = DiskBusKind(
    units_max=lambda _family: _UNITS_MAX,
    cdroms=True,
    controllers=_controllers,
    place=_PLACE,
    unit=_unit,
    hot_plug=lambda _family: True,
)
