"""Pick the kernel modules that the guest may need, each with its dependencies in load order."""

from __future__ import annotations

from pathlib import Path

__all__ = ["GUEST_MODULES", "ModuleSet"]

GUEST_MODULES = (
    "8139cp",
    "ahci",
    "ata_piix",
    "button",
    "e1000",
    "e1000e",
    "evdev",
    "hid-generic",
    "i6300esb",
    "isofs",
    "nvme",
    "pvpanic-pci",
    "sd_mod",
    "sr_mod",
    "usb-storage",
    "usbhid",
    "virtio-rng",
    "virtio_balloon",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "vmw_vsock_virtio_transport",
    "vmxnet3",
    "xhci-pci",
)


def _name(path: str) -> str:
    return Path(path).name.split(".")[0]


class ModuleSet:
    """The modules of one kernel, by its modules.dep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dependencies: dict[str, tuple[str, list[str]]] = {}
        for line in (folder / "modules.dep").read_text().splitlines():
            path, _, needed = line.partition(":")
            self._dependencies[_name(path)] = (path, needed.split())

    def in_load_order(self, name: str) -> list[Path]:
        """The module's files, those it depends on first."""
        path, needed = self._dependencies[name]
        return [self._folder / part for part in [*reversed(needed), path]]

    def index(self, names: tuple[str, ...]) -> str:
        """The text of /modules/index: a line for each module, `NAME FILE…`."""
        lines = []
        for name in names:
            files = " ".join(path.name for path in self.in_load_order(name))
            lines.append(f"{name} {files}\n")
        return "".join(lines)

    def files(self, names: tuple[str, ...]) -> list[Path]:
        """All files that the modules need, each once."""
        found = {path.name: path for name in names for path in self.in_load_order(name)}
        return [found[name] for name in sorted(found)]
