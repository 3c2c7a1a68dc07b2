"""IDE: two channels of two units, on the pc machine only."""

from __future__ import annotations

from vmkernel.devices.device import Board
from vmkernel.devices.disk import DiskBusKind, Unit
from vmkernel.devices.plan import Family

__all__ = ["KIND"]

_UNITS_OF_CHANNEL = 2
_UNITS = 4


def _unit(board: Board, unit: Unit) -> None:
    assert unit.position is not None
    channel, position = divmod(unit.position, _UNITS_OF_CHANNEL)
    board.args.device(
        "ide-cd" if unit.cdrom else "ide-hd",
        id=unit.device_id,
        bus=f"ide.{channel}",
        unit=position,
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
        write_cache=unit.write_cache_word,
        werror=unit.on_write_error,
    )


KIND = DiskBusKind(
    units_max=lambda family: _UNITS if family is Family.PC else 0,
    cdroms=True,
    unit=_unit,
    read_only=False,
)
