"""The defaults of devices, by the guest's operating system.

        linux, other      windows
disks   virtio-blk        sata (Windows has no driver for virtio)
NICs virtio            e1000e
"""

from __future__ import annotations

from vmkernel.model import DiskBus, DiskSpec, GuestOs, NicModel, NicSpec, VmSpec

__all__ = ["CDROMS_MAX", "SEED_BUS", "disk_bus_of", "has_bus", "nic_model_of", "seed_key"]

CDROMS_MAX = 8
"""Drives of a VM, that of cloud-init's seed included: `cdrom0` to `cdrom7`."""
SEED_BUS = DiskBus.SATA
"""What the CD-ROM with cloud-init's seed hangs on."""


def disk_bus_of(spec: VmSpec, disk: DiskSpec) -> DiskBus:
    """The bus of a disk, given or by default."""
    if disk.bus is not None:
        return disk.bus
    return DiskBus.SATA if spec.guest_os is GuestOs.WINDOWS else DiskBus.VIRTIO_BLK


def nic_model_of(spec: VmSpec, nic: NicSpec) -> NicModel:
    """The model of a card, given or by default."""
    if nic.model is not None:
        return nic.model
    return NicModel.E1000E if spec.guest_os is GuestOs.WINDOWS else NicModel.VIRTIO


def has_bus(spec: VmSpec, bus: DiskBus) -> bool:
    """True if a disk or drive of the spec is on the bus; the seed's drive doesn't count."""
    return any(disk_bus_of(spec, d) is bus for d in spec.disks) or any(
        cdrom.bus is bus for cdrom in spec.cdroms
    )


def seed_key(spec: VmSpec) -> str:
    """The key of the drive with cloud-init's seed: the last free one."""
    used = {cdrom.key for cdrom in spec.cdroms}
    keys = (f"cdrom{number}" for number in reversed(range(CDROMS_MAX)))
    return next(key for key in keys if key not in used)
