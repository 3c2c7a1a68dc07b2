"""Devices of a running QEMU: added, removed, changed. The commands that add or set one device are
made by vmkernel/devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from vmkernel.devices.arguments import Command
from vmkernel.devices.disk import limits_group
from vmkernel.devices.usb import FIRST_STORAGE_PORT
from vmkernel.model import ErrorCode, MicaError
from vmkernel.qemu.answers import BlockDevice, MemoryDevice, ProcessorPlace, QomProperty, Word
from vmkernel.qemu.block_graph import nodes_below, remove_all_of, remove_nodes
from vmkernel.qemu.errors import QmpCommandError
from vmkernel.qemu.session import Qmp

__all__ = [
    "add_processors",
    "apply",
    "devices",
    "dimm_numbers",
    "dimms",
    "drop_disk",
    "drop_netdev",
    "drop_object",
    "eject",
    "insert",
    "inserted",
    "make_room",
    "processors",
    "unplug",
    "usb_units",
]

_PERIPHERAL = "/machine/peripheral"
_OBJECTS = "/objects"
_OF_DEVICES = frozenset({"device_add", "device_del"})
_UNDER_WAY = "already in the process of unplug"


async def devices(qmp: Qmp) -> frozenset[str]:
    """The ids of all devices that have one."""
    found = await qmp.ask("qom-list", tuple[QomProperty, ...], {"path": _PERIPHERAL})
    return frozenset(item.name for item in found if item.name != "type")


async def unplug(qmp: Qmp, device: str) -> None:
    """Request the removal of a device. It is gone once `devices` doesn't list it: a PCI device
    needs the guest's consent.
    """
    try:
        await qmp.execute("device_del", {"id": device})
    except QmpCommandError as error:
        if _UNDER_WAY not in str(error):
            raise


async def drop_disk(qmp: Qmp, key: str) -> bool:
    """Remove what is left of a disk without a device: nodes, files, the throttle group. False if
    QEMU still uses some of it; try again later.
    """
    return await remove_all_of(qmp, key) and await drop_object(qmp, limits_group(key))


async def drop_object(qmp: Qmp, name: str) -> bool:
    """Remove an object, if there is one; False if QEMU still uses it."""
    found = await qmp.ask("qom-list", tuple[QomProperty, ...], {"path": _OBJECTS})
    if not any(item.name == name for item in found):
        return True
    try:
        await qmp.execute("object-del", {"id": name})
    except QmpCommandError:
        return False
    return True


async def make_room(qmp: Qmp, key: str, *, disk: bool = False, netdev: str | None = None) -> None:
    """Remove what could conflict with a new device: remains of an earlier attempt with a lost
    answer, or of a removed device with that key. `conflict` if it is still in use.
    """
    if key in await devices(qmp):
        raise MicaError(ErrorCode.CONFLICT, f"QEMU still has a device {key}; try again.")
    if netdev is not None:
        await drop_netdev(qmp, netdev)
    if disk and not await drop_disk(qmp, key):
        raise MicaError(
            ErrorCode.CONFLICT, f"QEMU has not released the former {key} yet; try again."
        )


async def drop_netdev(qmp: Qmp, netdev: str) -> None:
    """Remove the host's side of a NIC that is gone."""
    with contextlib.suppress(QmpCommandError):
        await qmp.execute("netdev_del", {"id": netdev})


async def eject(qmp: Qmp, key: str) -> None:
    """Remove the CD from a drive, even if the guest has locked it; the tray stays open."""
    await qmp.execute("blockdev-open-tray", {"id": key, "force": True})
    await qmp.execute("blockdev-remove-medium", {"id": key})
    await remove_nodes(qmp, await nodes_below(qmp, key))


async def insert(qmp: Qmp, key: str) -> None:
    """Insert the node named like the drive, and close the tray."""
    await qmp.execute("blockdev-open-tray", {"id": key, "force": True})
    await qmp.execute("blockdev-insert-medium", {"id": key, "node-name": key})
    await qmp.execute("blockdev-close-tray", {"id": key})


async def inserted(qmp: Qmp, key: str) -> list[str]:
    """The nodes of the CD in a drive, from the top down; empty if there is none."""
    for drive in await qmp.ask("query-block", tuple[BlockDevice, ...]):
        if drive.qdev == key and drive.inserted is not None:
            return await nodes_below(qmp, key)
    return []


async def apply(qmp: Qmp, commands: Iterable[Command]) -> None:
    """Run the commands of the device modules. A device that exists is not added again, and a
    missing one need not be removed: an earlier attempt may have done it, with its answer lost.
    """
    for name, arguments in commands:
        if name in _OF_DEVICES:
            present = arguments["id"] in await devices(qmp)
            if present is (name == "device_add"):
                continue
        await qmp.execute(name, arguments)


async def processors(qmp: Qmp) -> int:
    """The number of vCPUs; 0 if the machine doesn't report it."""
    found = await qmp.ask("query-hotpluggable-cpus", tuple[ProcessorPlace, ...])
    return sum(place.qom_path is not None for place in found)


async def add_processors(qmp: Qmp, count: int) -> int:
    """Add this many vCPUs at the first free places; returns how many were added."""
    found = await qmp.ask("query-hotpluggable-cpus", tuple[ProcessorPlace, ...])
    places = [place for place in found if place.qom_path is None]
    places.sort(key=lambda place: _order(place.props))
    if len(places) < count:
        raise MicaError(ErrorCode.CONFLICT, f"The VM can take only {len(places)} more vCPUs.")
    for done, place in enumerate(places[:count]):
        props = dict(place.props)
        number = "-".join(str(value) for value in _order(props))
        try:
            await qmp.execute("device_add", {"driver": place.type, "id": f"cpu{number}", **props})
        except QmpCommandError:
            if not done:
                raise
            return done
    return count


def _order(props: Mapping[str, int]) -> tuple[int, ...]:
    names = ("socket-id", "die-id", "core-id", "thread-id")
    return tuple(props.get(name, 0) for name in names)


async def dimms(qmp: Qmp) -> tuple[tuple[int, int], ...]:
    """The added DIMMs: number and bytes, in order (`query-memory-devices`)."""
    found = []
    for device in await qmp.ask("query-memory-devices", tuple[MemoryDevice, ...]):
        name = device.data.id or ""
        if name.startswith("dimm") and name.removeprefix("dimm").isdigit():
            found.append((int(name.removeprefix("dimm")), device.data.size))
    return tuple(sorted(found))


async def usb_units(qmp: Qmp, units: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Key and place, counted from 0, of units on USB; `units` are their devices' ids by key.
    Missing ones are left out. (A place that QEMU chose would be an empty `port`.)
    """
    present = await devices(qmp)
    found = []
    for key, device in units.items():
        if device not in present:
            continue
        where = {"path": f"{_PERIPHERAL}/{device}", "property": "port"}
        port = await qmp.ask("qom-get", Word, where)
        if port.isdigit() and port.isascii():
            found.append((key, int(port) - FIRST_STORAGE_PORT))
    return tuple(found)


async def dimm_numbers(qmp: Qmp) -> frozenset[int]:
    """The numbers of the added DIMMs."""
    return frozenset(
        int(name.removeprefix("dimm"))
        for name in await devices(qmp)
        if name.startswith("dimm") and name.removeprefix("dimm").isdigit()
    )
