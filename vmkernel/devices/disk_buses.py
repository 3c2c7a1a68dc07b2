"""Which module makes disks on which bus: one line each."""

from __future__ import annotations

from vmkernel.devices import (
    disk_ide,
    disk_nvme,
    disk_sata,
    disk_usb,
    disk_virtio_blk,
    disk_virtio_scsi,
)
from vmkernel.devices.disk import DiskBusKind
from vmkernel.model import DiskBus

__all__ = ["DISK_BUSES"]

DISK_BUSES: dict[DiskBus, DiskBusKind] = {
    DiskBus.VIRTIO_BLK: disk_virtio_blk.KIND,
    DiskBus.VIRTIO_SCSI: disk_virtio_scsi.KIND,
    DiskBus.NVME: disk_nvme.KIND,
    DiskBus.SATA: disk_sata.KIND,
    DiskBus.IDE: disk_ide.KIND,
    DiskBus.USB: disk_usb.KIND,
}
