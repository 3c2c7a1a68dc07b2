"""The inventory: every PCI and USB device with its driver, its bundle, or a finding.

For a device without a driver, `modprobe` shows whether a module of the image claims it. If one
does, the driver refused the device; if none does, the image has no driver for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from vmkernel.host.screen import has_screen
from vmkernel.host.sysfs import SYS, link_name, read_text, subfolders
from vmkernel.host.usb_descriptors import usb_interface_class
from vmkernel.host_devices.bundles import BundleCatalogue
from vmkernel.host_devices.classes import pci_class, usb_class_name, usb_class_needs_driver
from vmkernel.model import Device, DeviceBus, Finding, MicaError, Severity

__all__ = ["Inventory", "ModuleResolver"]

_log = logging.getLogger(__name__)

ModuleResolver = Callable[[str], Awaitable[tuple[str, ...]]]
"""The modules of this system that claim a `modalias`."""


_NOT_LISTED = "usb-device-not-listed"
_DISPLAY = "03"
"""PCI base class of display controllers."""


class Inventory:
    """Reads the devices when needed, and caches them until `changed` is called."""

    def __init__(
        self,
        bundles: BundleCatalogue,
        resolve: ModuleResolver | None,
        *,
        sys: Path = SYS,
    ) -> None:
        """`resolve` is None if drivers are not Mica's concern (hosted mode)."""
        self._bundles = bundles
        self._resolve = resolve
        self._sys = sys
        self._known: tuple[Device, ...] | None = None

    def changed(self) -> None:
        """Devices or drivers were added or removed."""
        self._known = None

    async def devices(self) -> tuple[Device, ...]:
        """All devices, ordered by bus and address."""
        if self._known is None:
            found = [await self._judged(device, alias) for device, alias in self._read()]
            found.sort(key=lambda device: (device.bus, device.address))
            self._known = tuple(found)
        return self._known

    async def load_display_drivers(self, load: Callable[[str], Awaitable[None]]) -> None:
        """Load drivers for the displays if the firmware left the machine without a screen.

        Everywhere else the firmware's screen is kept, because a kernel that panics still shows it.
        """
        if has_screen(self._sys):
            return
        for device, alias in self._read():
            if device.bus is DeviceBus.PCI and device.class_code.startswith(_DISPLAY):
                for module in await self._modules_for(alias):
                    try:
                        await load(module)
                    except MicaError as error:
                        _log.warning("display driver %s can't be loaded: %s", module, error)

    async def findings(self) -> tuple[Finding, ...]:
        """The findings of devices that a user may expect the host to use: an ignored keyboard is
        reported only with the device, not in the host's list of findings.
        """
        return tuple(
            d.finding
            for d in await self.devices()
            if d.finding is not None
            and (d.finding.code != _NOT_LISTED or usb_class_needs_driver(d.class_code))
        )

    def _read(self) -> Iterator[tuple[Device, str]]:
        pci = self._sys / "bus/pci/devices"
        for address in subfolders(pci):
            if (device := self._pci(pci / address)) is not None:
                yield device, read_text(pci / address / "modalias") or ""
        usb = self._sys / "bus/usb/devices"
        for address in subfolders(usb):
            if ":" not in address and not address.startswith("usb"):
                yield from self._usb(usb / address)

    def _pci(self, folder: Path) -> Device | None:
        vendor, product, code = (
            (read_text(folder / name) or "").removeprefix("0x")
            for name in ("vendor", "device", "class")
        )
        if not vendor or not product:
            return None
        module = link_name(folder / "driver/module")
        return Device(
            bus=DeviceBus.PCI,
            address=folder.name,
            vendor_id=vendor,
            product_id=product,
            class_code=code,
            name=pci_class(code)[0],
            driver=link_name(folder / "driver"),
            module=module,
            bundle=self._bundles.bundle_of(module),
        )

    def _usb(self, folder: Path) -> Iterator[tuple[Device, str]]:
        vendor, product = read_text(folder / "idVendor"), read_text(folder / "idProduct")
        if not vendor or not product:
            return
        interfaces = [folder / n for n in subfolders(folder) if n.startswith(f"{folder.name}:")]
        code = read_text(folder / "bDeviceClass") or "00"
        if code == "00":
            of_interface = read_text(interfaces[0] / "bInterfaceClass") if interfaces else None
            code = of_interface or usb_interface_class(folder) or code
        bound = next((i for i in interfaces if link_name(i / "driver")), None)
        module = link_name(bound / "driver/module") if bound else None
        named = [read_text(folder / name) for name in ("manufacturer", "product")]
        alias = next((read_text(i / "modalias") for i in interfaces), None)
        yield (
            Device(
                bus=DeviceBus.USB,
                address=folder.name,
                vendor_id=vendor,
                product_id=product,
                class_code=code,
                name=" ".join(_printable(text) for text in named if text) or usb_class_name(code),
                driver=link_name(bound / "driver") if bound else None,
                module=module,
                bundle=self._bundles.bundle_of(module),
            ),
            alias or "",
        )

    async def _judged(self, device: Device, alias: str) -> Device:
        if device.driver is not None or self._resolve is None:
            return device
        if device.bus is DeviceBus.USB and self._kept_out(device):
            return _unused(device)
        if device.bus is DeviceBus.PCI:
            what, severity = pci_class(device.class_code)
        else:
            what = usb_class_name(device.class_code)
            severity = Severity.INFO if usb_class_needs_driver(device.class_code) else None
        if severity is None:
            return device
        ids = f"{device.vendor_id}:{device.product_id}"
        modules = await self._modules_for(alias)
        if modules and device.class_code.startswith(_DISPLAY) and has_screen(self._sys):
            return device  # left to the firmware, see load_display_drivers
        if modules:
            bundle = self._bundles.bundle_of(modules[0])
            whence = f" (bundle {bundle})" if bundle else ""
            text = f"driver {modules[0]}{whence} did not accept it; the kernel's log says why."
        else:
            text = "no driver in this image supports it."
        finding = Finding(
            code="device-without-driver",
            severity=severity,
            message=f"The {what} {ids} at {device.bus} {device.address} can't be used: {text}",
            subject=f"{device.bus}/{device.address}",
        )
        return msgspec.structs.replace(device, finding=finding)

    def _kept_out(self, device: Device) -> bool:
        """True for a USB device that no rule lets in (50-mica.rules, 60-mica-usb.rules)."""
        return read_text(self._sys / "bus/usb/devices" / device.address / "authorized") == "0"

    async def _modules_for(self, alias: str) -> tuple[str, ...]:
        if not alias or self._resolve is None:
            return ()
        try:
            return await self._resolve(alias)
        except MicaError as error:
            _log.warning("the drivers for %s can't be looked up: %s", alias, error)
            return ()


def _unused(device: Device) -> Device:
    """The device, with a finding that says why."""
    ids = f"{device.vendor_id}:{device.product_id}"
    finding = Finding(
        code=_NOT_LISTED,
        severity=Severity.INFO,
        message=(
            f"The {usb_class_name(device.class_code)} {ids} at usb {device.address} is not used: "
            "of USB devices, this host uses hubs, storage and the network adapters that its "
            "driver bundles name."
        ),
        subject=f"{device.bus}/{device.address}",
    )
    return msgspec.structs.replace(device, finding=finding)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
