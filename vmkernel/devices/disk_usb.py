"""USB storage: disks and CD-ROMs on the USB controller."""

from __future__ import annotations

from vmkernel.devices.device import Board
from vmkernel.devices.disk import DiskBusKind, Unit
from vmkernel.devices.usb import FIRST_STORAGE_PORT, STORAGE_PORTS, USB_BUS

__all__ = ["KIND", "bridge_of"]


def bridge_of(key: str) -> str:
    """The id of the device on the port of a CD-ROM drive, which is a SCSI drive behind it."""
    return f"{key}-bot"


def _unit(board: Board, unit: Unit) -> None:
    assert unit.position is not None
    port = str(FIRST_STORAGE_PORT + unit.position)
    if not unit.cdrom:
        board.args.device(
            "usb-storage",
            id=unit.device_id,
            bus=USB_BUS,
            port=port,
            drive=unit.drive,
            serial=unit.serial,
            bootindex=unit.bootindex,
            write_cache=unit.write_cache_word,
            werror=unit.on_write_error,
        )
        return
    bridge = bridge_of(unit.device_id)
    board.args.device("usb-bot", id=bridge, bus=USB_BUS, port=port)
    board.args.device(
        "scsi-cd",
        id=unit.device_id,
        bus=f"{bridge}.0",
        drive=unit.drive,
        bootindex=unit.bootindex,
    )


KIND = DiskBusKind(
    units_max=lambda _family: STORAGE_PORTS,
    cdroms=True,
    unit=_unit,
    hot_plug=lambda _family: True,
)
