"""The order in which the firmware tries devices."""

from __future__ import annotations

from vmkernel.devices.plan import CdromPlan, DiskPlan, MachinePlan, NicPlan
from vmkernel.model import BootDevice

__all__ = ["boot_places"]


def boot_places(plan: MachinePlan) -> dict[str, int]:
    """Each device's place in the boot order, counted from 1: those with an index first, then the
    classes; others are left out.
    """
    classes: dict[BootDevice, tuple[DiskPlan | CdromPlan | NicPlan, ...]] = {
        BootDevice.DISK: plan.disks,
        BootDevice.CDROM: plan.cdroms,
        BootDevice.NETWORK: plan.nics,
    }
    everything = [device for devices in classes.values() for device in devices]
    first = [device for device in everything if device.boot_index is not None]
    first.sort(key=lambda device: device.boot_index or 0)
    keys = [device.key for device in first]
    keys += [device.key for kind in plan.spec.boot.order for device in classes[kind]]
    return {key: place for place, key in enumerate(dict.fromkeys(keys), 1)}
