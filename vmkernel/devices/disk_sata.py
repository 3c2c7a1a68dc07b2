"""SATA: six ports of an AHCI controller, which q35 has and pc gets."""

from __future__ import annotations

from vmkernel.devices.device import Board
from vmkernel.devices.disk import DiskBusKind, Unit
from vmkernel.devices.plan import Family

__all__ = ["KIND"]

_PORTS = 6
_PLACE = {Family.PC: "0x7"}


def _controllers(board: Board) -> None:
    if board.family is Family.PC:
        board.args.device("ich9-ahci", id="ahci", **board.slots.at(_PLACE))


def _unit(board: Board, unit: Unit) -> None:
    assert unit.position is not None
    controller = "ide" if board.family is Family.Q35 else "ahci"
    board.args.device(
        "ide-cd" if unit.cdrom else "ide-hd",
        id=unit.device_id,
        bus=f"{controller}.{unit.position}",
        unit=0,
        drive=unit.drive,
        serial=unit.serial,
        bootindex=unit.bootindex,
        write_cache=unit.write_cache_word,
        werror=unit.on_write_error,
    )


KIND = DiskBusKind(
    units_max=lambda _family: _PORTS,
    cdroms=True,
    controllers=_controllers,
    place=_PLACE,
    unit=_unit,
    read_only=False,
)
