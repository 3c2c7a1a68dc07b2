"""The stick plugged into a machine and brought to its API: what most boot tests begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.framework import inputs
from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, copy_sparse, overlay
from tests.framework.machine import Firmware, Machine, MachineSpec
from tests.framework.stick import put_settings

__all__ = ["STICK_SERIAL", "Setup", "new_stick", "plugged_in", "restarted"]

STICK_SERIAL = "MICASTICK0001"


@dataclass(frozen=True)
class Setup:
    """What a test wants of its machine."""

    folder: Path
    """Where its disks and logs lie; they stay there afterwards."""
    firmware: Firmware = Firmware.UEFI
    disks: tuple[Drive, ...] = ()
    memory_mib: int = 2048
    nic: str = "virtio-net-pci"
    tap_fd: int | None = None
    write_logs: bool = False
    """Record every write to the stick, for power cuts."""
    settings: str = ""
    """What the stick's `mica.toml` says."""
    kernel_arguments: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    tolerate: tuple[str, ...] = ()
    name: str = field(default="machine")

    @property
    def stick(self) -> Path:
        """The stick's own writes, over the image as it was built."""
        return self.folder / "stick.qcow2"

    @property
    def stick_log(self) -> Path:
        """The record of the stick's writes."""
        return self.folder / "stick.writes"

    def spec(self) -> MachineSpec:
        stick = Drive(
            name="stick",
            path=self.stick,
            bus=Bus.USB,
            serial=STICK_SERIAL,
            format="qcow2",
            boot=True,
            write_log=self.stick_log if self.write_logs else None,
        )
        return MachineSpec(
            drives=(stick, *self.disks),
            firmware=self.firmware,
            memory_mib=self.memory_mib,
            nic=self.nic,
            tap_fd=self.tap_fd,
            kernel_arguments=self.kernel_arguments,
            extra=self.extra,
            name=self.name,
        )


def new_stick(setup: Setup) -> None:
    setup.folder.mkdir(parents=True, exist_ok=True)
    for name in ("nvram.fd", "stick.writes"):
        (setup.folder / name).unlink(missing_ok=True)
    image = inputs.stick_image()
    if setup.settings:
        image = copy_sparse(image, setup.folder / "image.img")
        put_settings(inputs.tools(), image, setup.settings)
    overlay(image, setup.stick)


@contextmanager
def plugged_in(setup: Setup, *, claim: bool = True) -> Iterator[Appliance]:
    """A fresh stick, started to its API, and claimed where nothing else is said."""
    new_stick(setup)
    with restarted(setup) as appliance:
        if claim:
            appliance.claim()
        yield appliance


@contextmanager
def restarted(setup: Setup, *, token: str | None = None) -> Iterator[Appliance]:
    """The stick as it was left, started to its API."""
    machine = Machine(setup.spec(), setup.folder)
    try:
        machine.power_on(tolerate=setup.tolerate)
        machine.wait_api()
        appliance = Appliance(machine, token=token)
        try:
            yield appliance
        finally:
            appliance.close()
    finally:
        machine.cut_power()
