"""The machine's PCI and USB devices, their drivers and bundles; it reads, and changes none."""

from vmkernel.host_devices.bundles import BundleCatalogue
from vmkernel.host_devices.inventory import Inventory

__all__ = ["BundleCatalogue", "Inventory"]
