"""A VM whose QEMU answers, as work inside its owner task sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmkernel.qemu import Qmp
from vmkernel.vm.launch.launcher import RunFolder
from vmkernel.vm.store.definition import VmDefinition
from vmkernel.vm.store.launch_record import LaunchRecord

__all__ = ["RunningVm"]


@dataclass
class RunningVm:
    """Valid only until the work that it was given to returns."""

    qmp: Qmp
    definition: VmDefinition
    """The present definition."""
    record: LaunchRecord | None
    """What was started; None if a QEMU was found again without its record."""
    folder: RunFolder
    write_record: Callable[[LaunchRecord], None]

    def keep_record(self, record: LaunchRecord) -> None:
        """Store the record of the running QEMU, for a vmkernel after a restart."""
        self.record = record
        self.write_record(record)

    @property
    def vm_id(self) -> str:
        return self.definition.id
