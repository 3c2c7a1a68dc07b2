"""The topology of a machine that is first started with a spec."""

from __future__ import annotations

from vmkernel.devices.defaults import SEED_BUS, disk_bus_of, nic_model_of, seed_key
from vmkernel.devices.disk_buses import DISK_BUSES
from vmkernel.devices.disk_usb import bridge_of
from vmkernel.devices.nic import NIC_KINDS
from vmkernel.devices.plan import BootTopology, number_of
from vmkernel.devices.usb import has_usb
from vmkernel.model import DiskBus, VmSpec

__all__ = ["topology_of", "usb_devices"]


def usb_devices(spec: VmSpec) -> dict[str, str]:
    """The ids of the devices on USB storage ports, by the keys of their disks and drives."""
    disks = [d.key or "" for d in spec.disks if disk_bus_of(spec, d) is DiskBus.USB]
    drives = [c.key or "" for c in spec.cdroms if c.bus is DiskBus.USB]
    return {key: key for key in disks} | {key: bridge_of(key) for key in drives}


def topology_of(
    spec: VmSpec,
    dimms: tuple[tuple[int, int], ...] = (),
    usb_units: tuple[tuple[str, int], ...] = (),
) -> BootTopology:
    """That of a machine which starts with a complete spec; `dimms` were added since, and the units
    on USB have these places."""
    disks = [(number_of(d.key or ""), disk_bus_of(spec, d)) for d in spec.disks]
    nics = [(number_of(n.key or ""), NIC_KINDS[nic_model_of(spec, n)]) for n in spec.nics]
    units = [(disk_bus_of(spec, disk), disk.key or "") for disk in spec.disks]
    units += [(cdrom.bus, cdrom.key or "") for cdrom in spec.cdroms]
    if spec.cloud_init is not None:
        units.append((SEED_BUS, seed_key(spec)))
    return BootTopology(
        started=spec,
        pci_disks=tuple(number for number, bus in disks if DISK_BUSES[bus].pci),
        express_nics=tuple(number for number, kind in nics if kind.express),
        other_disks=tuple(number for number, bus in disks if not DISK_BUSES[bus].pci),
        other_nics=tuple(number for number, kind in nics if not kind.express),
        units=tuple(units),
        usb=has_usb(spec),
        dimms=dimms,
        usb_units=usb_units,
    )
