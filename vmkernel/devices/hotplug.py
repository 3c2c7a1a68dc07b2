"""What is plugged into a running machine, as QMP commands: the same builders as for its start.

The nodes and objects of a device come first, the device last; if one fails, the caller undoes those
before it in reverse order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vmkernel.devices.arguments import Arguments, Command
from vmkernel.devices.device import Board
from vmkernel.devices.disk import add_cdrom_nodes, add_disk_nodes, disk_unit
from vmkernel.devices.disk_buses import DISK_BUSES
from vmkernel.devices.memory import add_dimm
from vmkernel.devices.nic import NIC_KINDS, add_nic
from vmkernel.devices.plan import CdromPlan, DiskPlan, Family, NicPlan
from vmkernel.devices.slots import Slots, ports_at_start
from vmkernel.model import DiskBus, HugePages, NicModel

__all__ = [
    "can_plug_disk",
    "can_plug_nic",
    "cdrom_medium_commands",
    "dimm_commands",
    "disk_commands",
    "free_disk_numbers",
    "free_nic_numbers",
    "nic_commands",
]


def can_plug_disk(bus: DiskBus, family: Family) -> bool:
    """True if disks of this bus can be plugged and unplugged while the guest runs."""
    return DISK_BUSES[bus].hot_plug(family)


def can_plug_nic(model: NicModel, family: Family) -> bool:
    """True if NICs of this model can be plugged and unplugged while the guest runs."""
    return family is Family.PC or NIC_KINDS[model].express


def free_disk_numbers(
    bus: DiskBus,
    *,
    at_start: Collection[int],
    others: Collection[int] = (),
    spare: int,
    now: Collection[int],
) -> list[int]:
    """The numbers that a new disk can have: `at_start` had the PCI disks (virtio-blk, NVMe) when
    the machine was started with `spare` free ports, `others` had other disks, `now` has all."""
    if not DISK_BUSES[bus].pci:
        numbers: Sequence[int] = range(64)
    else:
        numbers = ports_at_start(at_start, spare, disks=True, others=others)
    return [number for number in numbers if number not in now]


def free_nic_numbers(
    family: Family,
    *,
    at_start: Collection[int],
    others: Collection[int] = (),
    spare: int,
    now: Collection[int],
) -> list[int]:
    """The numbers that a new card can have: `at_start` had the Express cards when the machine was
    started with `spare` free ports, `others` had other cards, `now` has all."""
    if family is Family.PC:
        numbers: Sequence[int] = range(16)
    else:
        numbers = ports_at_start(at_start, spare, disks=False, others=others)
    return [number for number in numbers if number not in now]


def disk_commands(
    disk: DiskPlan, family: Family, *, tag: str, position: int | None
) -> list[Command]:
    """A disk and its nodes; `tag` must not have been used for this key in this run of QEMU. On a
    bus on which keys don't determine the place (USB), `position` is a free one.
    """
    board = _board(family)
    add_disk_nodes(board.args, disk, tag)
    DISK_BUSES[disk.bus].unit(board, disk_unit(disk, position, None))
    return board.args.commands()


def cdrom_medium_commands(cdrom: CdromPlan, *, tag: str) -> list[Command]:
    """The nodes of an ISO image, for `blockdev-insert-medium` of the node named like the key."""
    args = Arguments()
    add_cdrom_nodes(args, cdrom, tag)
    return args.commands()


def nic_commands(nic: NicPlan, family: Family) -> list[Command]:
    """A network card and its backend."""
    board = _board(family)
    add_nic(board, nic)
    return board.args.commands()


def dimm_commands(number: int, size_bytes: int, huge_pages: HugePages) -> list[Command]:
    """A DIMM and its memory."""
    args = Arguments()
    add_dimm(args, number, size_bytes, huge_pages)
    return args.commands()


def _board(family: Family) -> Board:
    args = Arguments()
    return Board(args, Slots(family, args), family)
