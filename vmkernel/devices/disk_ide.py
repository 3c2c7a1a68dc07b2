"""IDE: two channels of two units, on the pc machine only."""

from __future__ import annotations

from vmkernel.devices.disk import Board, DiskBusKind, Unit
from vmkernel.devices.plan import Family

__all__ = ["KIND"]

_UNITS_OF_CHANNEL = 2
_UNITS = 4


def _unit(board: Board, unit: Unit) -> None:
    channel, position = divmod(unit.number, _UNITS_OF_CHANNEL)
    board.args.device(
        "ide-cd" if unit.cdrom else "ide-hd",
        id=unit.device_id,
        bus=f"ide.{channel}",
        unit=position,
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
        write_cache=None if unit.cdrom else "on",
    )


KIND = DiskBusKind(
    units_max=lambda family: _UNITS if family is Family.PC else 0,
    cdroms=True,
    iothread=False,
    unit=_unit,
)
