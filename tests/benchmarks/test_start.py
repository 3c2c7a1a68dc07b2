"""Power-on to the API as seen from outside, by part; and a bare UKI of the same kernel in turn."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from tests.benchmarks.records import REPEATS, Record
from tests.framework import inputs
from tests.framework.appliance import Appliance
from tests.framework.console import Console
from tests.framework.drives import Bus, Drive, overlay
from tests.framework.guest import guest_files
from tests.framework.machine import Firmware, Machine, MachineSpec
from tests.framework.plugged_in import Setup, new_stick

HANDOVER = r"^BdsDxe: starting Boot"
STAGE = re.compile(r"^mica: (.*) \((\d+\.\d) s\)$")
START_S = 180.0


def _handover(console: Console) -> float:
    return console.expect(HANDOVER, timeout_s=60, what="the firmware hands over")[1].time_s


def _kernel_start(console: Console) -> float:
    """When the kernel began, by what the boot story says of the time since then."""
    starts = [
        line.time_s - float(match.group(2))
        for line in console.lines()
        if (match := STAGE.match(line.text))
    ]
    return min(starts)


def _appliance(folder: Path, firmware: Firmware) -> dict[str, float]:
    """The parts of one start of the product, in seconds."""
    setup = Setup(folder=folder, firmware=firmware)
    new_stick(setup)
    machine = Machine(setup.spec(), folder)
    try:
        machine.power_on()
        total = machine.wait_api(timeout_s=START_S)
        on = machine.powered_on_s
        parts = {"power-on to API": total}
        kernel = _kernel_start(machine.console) - on
        if firmware is Firmware.UEFI:
            handover = _handover(machine.console) - on
            parts["firmware"] = handover
            parts["load"] = kernel - handover
        else:
            parts["firmware and load"] = kernel
        parts["kernel start to API"] = total - kernel
        appliance = Appliance(machine)
        appliance.claim()
        for name, seconds in appliance.host()["boot"]["timings_s"].items():
            parts[f"by the appliance: {name}"] = float(seconds)
        for line in machine.console.lines():
            if match := STAGE.match(line.text):
                parts[f"story: {match.group(1)[:60]}"] = float(match.group(2))
        appliance.close()
        return parts
    finally:
        machine.cut_power()


def _floor(folder: Path) -> dict[str, float]:
    """The same kernel as a UKI with a static init, from the same kind of stick."""
    stick = overlay(guest_files().uefi_disk, folder / "floor.qcow2")
    drive = Drive("stick", stick, Bus.USB, "FLOOR", format="qcow2", boot=True)
    machine = Machine(MachineSpec(drives=(drive,), name="floor"), folder)
    try:
        machine.power_on()
        handover = _handover(machine.console) - machine.powered_on_s
        ready = machine.console.expect(
            "MICA GUEST READY", timeout_s=START_S, what="the static init speaks"
        )[1]
        total = ready.time_s - machine.powered_on_s
        return {"floor: firmware": handover, "floor: power-on to static init": total}
    finally:
        machine.cut_power()


@pytest.mark.timeout(3600)
def test_power_on_to_api() -> None:
    record = Record("start")
    folder = inputs.work_folder("bench-start")
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(REPEATS):
        for parts in (
            _appliance(folder / "uefi", Firmware.UEFI),
            _floor(folder),
        ):
            for name, seconds in parts.items():
                found[name].append(seconds)
        for name, seconds in _appliance(folder / "bios", Firmware.BIOS).items():
            if not name.startswith(("story", "by the")):
                found[f"BIOS: {name}"].append(seconds)
    for name, values in found.items():
        record.figure(name, "s", values)
    ratios = [
        ours / theirs
        for ours, theirs in zip(
            found["power-on to API"], found["floor: power-on to static init"], strict=True
        )
    ]
    record.figure("ratio to the floor", "", ratios)
    record.write()
    shutil.rmtree(folder, ignore_errors=True)
