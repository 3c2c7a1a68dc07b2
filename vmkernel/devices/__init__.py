"""Virtual hardware, one file a kind, as QEMU arguments; it must not start or talk to QEMU."""

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.disk_buses import DISK_BUSES
from vmkernel.devices.plan import (
    Accelerator,
    Aio,
    CdromPlan,
    DiskLayer,
    DiskPlan,
    Family,
    FirmwarePlan,
    KernelPlan,
    MachinePlan,
    NicPlan,
    SerialPlan,
    TapBackend,
    UserBackend,
)
from vmkernel.devices.registry import DEVICES, SETTINGS

__all__ = [
    "Accelerator",
    "Aio",
    "Arguments",
    "CdromPlan",
    "DEVICES",
    "DISK_BUSES",
    "DiskLayer",
    "DiskPlan",
    "Family",
    "FirmwarePlan",
    "KernelPlan",
    "MachinePlan",
    "NicPlan",
    "SETTINGS",
    "SerialPlan",
    "TapBackend",
    "UserBackend",
]
