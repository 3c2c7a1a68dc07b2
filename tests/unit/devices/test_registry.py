"""The registry of devices: who is in it, and where each sits."""

from __future__ import annotations

import pkgutil
from collections import defaultdict
from importlib import import_module

import pytest

from vmkernel import devices
from vmkernel.devices import DEVICES, DISK_BUSES, SETTINGS, Family
from vmkernel.devices.device import Device
from vmkernel.model import DiskBus
from vmkernel.model.vm import SCOPES

RANGES = {Family.Q35: range(0x01, 0x10), Family.PC: range(0x02, 0x08)}
"""The PCI devices that slots.py leaves to what exists at most once."""
BRIDGE = 0x07


def test_every_device_module_is_registered() -> None:
    made = [
        value
        for info in pkgutil.iter_modules(devices.__path__, "vmkernel.devices.")
        for value in vars(import_module(info.name)).values()
        if isinstance(value, Device)
    ]
    assert {id(device) for device in made} == {id(device) for device in DEVICES}
    assert len(set(map(id, DEVICES))) == len(DEVICES)


def test_every_bus_has_a_module() -> None:
    assert set(DISK_BUSES) == set(DiskBus)


def test_no_setting_has_two_devices() -> None:
    assert len(SETTINGS) == sum(len(device.settings) for device in DEVICES)
    assert SETTINGS.keys() <= SCOPES.keys()


@pytest.mark.parametrize("family", Family)
def test_no_two_devices_have_one_place(family: Family) -> None:
    owners: dict[tuple[int, int], int] = defaultdict(int)
    functions: dict[int, set[int | None]] = defaultdict(set)
    all_places = [
        *(device.place for device in DEVICES),
        *(kind.place for kind in DISK_BUSES.values()),
    ]
    for address in (places[family] for places in all_places if family in places):
        slot, _, function = address.partition(".")
        place = (int(slot, 16), int(function or "0", 16))
        owners[place] += 1
        functions[place[0]].add(int(function, 16) if function else None)
        assert place[0] in RANGES[family]
        assert (family, place[0]) != (Family.Q35, BRIDGE)
    assert set(owners.values()) == {1}
    for number, found in functions.items():  # a whole device, or functions with the first of them
        assert found == {None} or (None not in found and 0 in found), hex(number)


def test_the_first_function_is_in_every_machine() -> None:
    """Without it the others are not seen (slots.py)."""
    firsts = [device for device in DEVICES if device.place.get(Family.PC, "").endswith(".0x0")]
    assert firsts == [devices.panic.PANIC]
