"""Virtual hardware, one file a kind, as QEMU arguments; it must not start or talk to QEMU."""

from vmkernel.devices.arguments import Arguments
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
    VsockPlan,
)
from vmkernel.devices.registry import DISK_BUSES

__all__ = [
    "Accelerator",
    "Aio",
    "Arguments",
    "CdromPlan",
    "DISK_BUSES",
    "DiskLayer",
    "DiskPlan",
    "Family",
    "FirmwarePlan",
    "KernelPlan",
    "MachinePlan",
    "NicPlan",
    "SerialPlan",
    "TapBackend",
    "UserBackend",
    "VsockPlan",
]
