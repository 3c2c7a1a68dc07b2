"""The inventory, read from a made-up /sys."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from firmware.device_bundles import load_bundles, module_name
from tests.framework.repository import REPOSITORY
from vmkernel.host.screen import has_screen
from vmkernel.host.usb_descriptors import usb_interface_class
from vmkernel.host_devices import BundleCatalogue, Inventory
from vmkernel.model import DeviceBus, ErrorCode, MicaError, Severity


class Tree:
    """Puts devices below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pci(self, address: str, ids: str, code: str, driver: str | None = None) -> None:
        """A PCI device."""
        folder = self.root / "bus/pci/devices" / address
        folder.mkdir(parents=True)
        vendor, product = ids.split(":")
        (folder / "vendor").write_text(f"0x{vendor}\n")
        (folder / "device").write_text(f"0x{product}\n")
        (folder / "class").write_text(f"0x{code}\n")
        (folder / "modalias").write_text(f"pci:v{vendor}d{product}\n")
        if driver:
            self._bind(folder, driver)

    def usb(self, address: str, code: str, driver: str | None = None) -> None:
        """A USB device with one interface."""
        folder = self.root / "bus/usb/devices" / address
        interface = folder / f"{address}:1.0"
        interface.mkdir(parents=True)
        for name, text in (
            ("idVendor", "0951"),
            ("idProduct", "1666"),
            ("bDeviceClass", "00"),
            ("product", "Stick\x07"),
        ):
            (folder / name).write_text(text + "\n")
        (interface / "bInterfaceClass").write_text(code + "\n")
        (interface / "modalias").write_text("usb:x\n")
        if driver:
            self._bind(interface, driver)

    def refused_usb(self, address: str, *classes: str) -> None:
        """A device that was not let in: the kernel read its descriptors and made no interface."""
        folder = self.root / "bus/usb/devices" / address
        folder.mkdir(parents=True)
        for name, text in (
            *(("idVendor", "0525"), ("idProduct", "a4a2")),
            *(("bDeviceClass", "00"), ("authorized", "0")),
        ):
            (folder / name).write_text(text + "\n")
        device, configuration = bytes([18, 1, *[0] * 16]), bytes([9, 2, *[0] * 7])
        interfaces = [bytes([9, 4, n, 0, 1, int(c, 16), 0, 0, 0]) for n, c in enumerate(classes)]
        data = b"".join((device, configuration, *interfaces))
        (folder / "descriptors").write_bytes(data)

    def _bind(self, folder: Path, driver: str) -> None:
        place = self.root / "drivers" / driver
        (self.root / "module" / driver).mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.mkdir(parents=True)
            (place / "module").symlink_to(self.root / "module" / driver)
        (folder / "driver").symlink_to(place)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty machine with a catalogue."""
    catalogue = {"schema": 1, "modules": {"igb": {"bundle": "intel", "hardware": "x"}}}
    (tmp_path / "bundles.json").write_text(json.dumps(catalogue))
    return Tree(tmp_path)


def inventory(tree: Tree, known: dict[str, tuple[str, ...]] | None = None) -> Inventory:
    """The inventory of the made-up machine."""

    async def resolve(alias: str) -> tuple[str, ...]:
        if known is None:
            raise MicaError(ErrorCode.UNAVAILABLE, "no modprobe")
        return known.get(alias, ())

    return Inventory(BundleCatalogue(tree.root / "bundles.json"), resolve, sys=tree.root)


def test_a_served_device_has_driver_module_and_bundle(tree: Tree) -> None:
    tree.pci("0000:02:00.0", "8086:1533", "020000", "igb")
    (device,) = asyncio.run(inventory(tree).devices())
    assert (device.bus, device.driver, device.module, device.bundle) == (
        DeviceBus.PCI,
        "igb",
        "igb",
        "intel",
    )
    assert device.name == "Ethernet controller"
    assert device.finding is None


def test_an_unserved_network_port_is_a_finding(tree: Tree) -> None:
    tree.pci("0000:02:00.0", "8086:1533", "020000")
    (finding,) = asyncio.run(inventory(tree, {}).findings())
    assert finding.severity is Severity.WARNING
    assert finding.subject == "pci/0000:02:00.0"
    assert "no driver in this image supports" in finding.message


def test_a_refused_device_names_the_driver(tree: Tree) -> None:
    tree.pci("0000:02:00.0", "8086:1533", "020000")
    (finding,) = asyncio.run(inventory(tree, {"pci:v8086d1533": ("igb",)}).findings())
    assert "driver igb (bundle intel) did not accept it" in finding.message


def _screen(tree: Tree, name: str) -> None:
    console = tree.root / "class/vtconsole/vtcon0"
    console.mkdir(parents=True, exist_ok=True)
    (console / "name").write_text(f"(S) {name}\n")
    (console / "bind").write_text("1\n")


@pytest.mark.parametrize(("screen", "loaded"), [("VGA+", []), ("dummy device", ["bochs"])])
def test_a_display_keeps_the_firmware_s_screen_where_there_is_one(
    tree: Tree, screen: str, loaded: list[str]
) -> None:
    tree.pci("0000:00:01.0", "1234:1111", "030000")
    tree.pci("0000:02:00.0", "8086:1533", "020000")
    _screen(tree, screen)
    known: dict[str, tuple[str, ...]] = {"pci:v1234d1111": ("bochs",), "pci:v8086d1533": ("igb",)}
    found: list[str] = []

    async def load(name: str) -> None:
        found.append(name)
        raise MicaError(ErrorCode.UNAVAILABLE, "no")

    asyncio.run(inventory(tree, known).load_display_drivers(load))
    assert found == loaded
    codes = {f.subject for f in asyncio.run(inventory(tree, known).findings())}
    assert ("pci/0000:00:01.0" in codes) == bool(loaded)
    assert "pci/0000:02:00.0" in codes


def test_no_screen_is_known_without_consoles(tree: Tree) -> None:
    assert not has_screen(tree.root)


def test_display_drivers_come_only_by_name() -> None:
    """Those of the bundle, and the others that drive a screen."""
    settings = REPOSITORY / "appliance_build/image/rootfs/usr/lib/modprobe.d/mica.conf"
    words = [line.split() for line in settings.read_text().splitlines()]
    listed = {line[1] for line in words if line[:1] == ["blacklist"]}
    (bundle,) = (
        b for b in load_bundles(REPOSITORY / "firmware/device_bundles") if b.name == "display"
    )
    of_firmware = {"simplefb", "vesafb"}
    drivers = {module_name(name) for name in bundle.manifest.drivers} - of_firmware
    assert listed == drivers | {"hyperv_drm", "virtio_gpu"}


def test_bridges_without_a_driver_are_no_finding(tree: Tree) -> None:
    tree.pci("0000:00:00.0", "8086:29c0", "060000")
    assert asyncio.run(inventory(tree).findings()) == ()


def test_a_resolver_that_fails_costs_only_its_answer(tree: Tree) -> None:
    tree.pci("0000:02:00.0", "8086:1533", "020000")
    assert len(asyncio.run(inventory(tree).findings())) == 1


def test_usb_devices_without_hubs_of_the_root(tree: Tree) -> None:
    tree.usb("usb1", "09", "hub")
    tree.usb("1-1", "08", "usb-storage")
    tree.usb("1-2", "0e")
    devices = asyncio.run(inventory(tree, {}).devices())
    assert [(d.address, d.class_code, d.driver) for d in devices] == [
        ("1-1", "08", "usb-storage"),
        ("1-2", "0e", None),
    ]
    assert devices[0].name == "Stick"
    assert devices[1].finding is None


def test_a_usb_device_that_was_not_let_in_says_why(tree: Tree) -> None:
    """Among the host's own findings is only what a host might use."""
    tree.refused_usb("1-1", "02", "0a")
    tree.refused_usb("1-2", "03")
    tree.refused_usb("1-3")
    found = inventory(tree, {})
    network, keyboard, empty = asyncio.run(found.devices())
    assert (network.class_code, keyboard.class_code, empty.class_code) == ("02", "03", "00")
    assert network.finding is not None
    assert (network.finding.code, network.finding.severity) == (
        "usb-device-not-listed",
        Severity.INFO,
    )
    assert "0525:a4a2 at usb 1-1" in network.finding.message
    assert keyboard.finding is not None
    assert "The input device 0525:a4a2 at usb 1-2 is not used" in keyboard.finding.message
    assert empty.finding is not None
    assert [finding.subject for finding in asyncio.run(found.findings())] == ["usb/1-1"]


@pytest.mark.parametrize(
    "descriptors", [b"", b"\x09", b"\0\0\0", b"\x09\x04\0", b"\xff\x01", b"\x04\x04\x08\x08"]
)
def test_descriptors_that_are_cut_or_wrong_have_no_class(
    tmp_path: Path, descriptors: bytes
) -> None:
    (tmp_path / "descriptors").write_bytes(descriptors)
    assert usb_interface_class(tmp_path) is None


def test_hosted_mode_judges_nobody(tree: Tree) -> None:
    tree.pci("0000:02:00.0", "8086:1533", "020000")
    found = Inventory(BundleCatalogue(tree.root / "none"), None, sys=tree.root)
    assert asyncio.run(found.findings()) == ()


def test_the_answer_is_kept_until_something_changed(tree: Tree) -> None:
    found = inventory(tree, {})
    assert asyncio.run(found.devices()) == ()
    tree.pci("0000:02:00.0", "8086:1533", "020000")
    assert asyncio.run(found.devices()) == ()
    found.changed()
    assert len(asyncio.run(found.devices())) == 1
