"""The appliance: the whole machine is ours."""

from __future__ import annotations

import logging

from vmkernel.adapters import OpenedMedium, Platform
from vmkernel.events import EventBus
from vmkernel.host.block import BlockDisk, BlockTree
from vmkernel.host.cgroup import Cgroup
from vmkernel.host.machine_mark import machine_mark
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.runner import Runner
from vmkernel.host.system import System
from vmkernel.host.systemd import Systemd
from vmkernel.host.worker import Workers
from vmkernel.model import DiskHealth, HostMode, MicaError
from vmkernel.operations import OperationRegistry
from vmkernel.options import Options
from vmkernel.platform.appliance import AppliancePlatform
from vmkernel.platform.machine_access import MachineAccess
from vmkernel.state import StateStore
from vmkernel.state.media import PartitionMedium
from vmkernel.storage.disks.health import DiskHealthWatch
from vmkernel.storage.disks.service import Disks
from vmkernel.storage.drivers.disk_selection import DiskChoice
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.drivers.registry import appliance_drivers
from vmkernel.storage.formats.open_disk import verify_open_disk
from vmkernel.storage.service import StorageService
from vmkernel.vm.assembly import assemble_vms
from vmkernel.vm.side import VmSide
from vmkernel.vm.store.definition import FIRST_UID, LAST_UID

__all__ = ["ApplianceAdapters", "PULL_UID", "QEMU_IMG_UID"]

_log = logging.getLogger(__name__)
_HOST_DOWN_S = 120.0

QEMU_IMG_UID = 701
"""The uid of qemu-img: it reads images from outside, and may write only its own files."""
PULL_UID = 702
"""Runs what fetches images from servers."""
_WORK_SLICE = "mica.slice/mica-work.slice"
_WORKERS_READ = ("/usr", "/lib", "/lib64", "/etc")
"""All that they may read besides what they are given."""


class ApplianceAdapters:
    def __init__(self, options: Options, machine: MachineAccess | None = None) -> None:
        self._options = options
        self._runner = Runner()
        self._workers = Workers(
            self._runner, readable=_WORKERS_READ, pull_uid=PULL_UID, cgroup=Cgroup(_WORK_SLICE)
        )
        self._platform = AppliancePlatform(
            machine or MachineAccess(System(self._runner)), options.run_dir
        )
        self._tree = BlockTree()
        self._stick_disk: str | None = None

    @property
    def workers(self) -> Workers:
        """See Adapters."""
        return self._workers

    @property
    def runner(self) -> Runner:
        return self._runner

    @property
    def platform(self) -> Platform:
        return self._platform

    @property
    def keeps_claim_code(self) -> bool:
        """/run lasts as long as the boot."""
        return True

    async def check_programs(self) -> None:
        """The image's own are known."""

    async def open_medium(self) -> OpenedMedium:
        """The state partition of the stick."""
        shadow = self._options.run_dir / "state-copy"
        device = self._options.state_device or await self._platform.find_state()
        if device is None:
            return OpenedMedium(None, "no state partition was found", shadow)
        if self._options.state_device is not None:
            self._stick_disk = self._tree.disk_of(device)
        try:
            return OpenedMedium(PartitionMedium(device), "", shadow)
        except OSError as error:
            return OpenedMedium(None, f"{device} can't be opened ({error.strerror})", shadow)

    async def apply_settings(self, store: StateStore, events: EventBus) -> None:
        """`mica.toml`, host name, network."""
        await self._platform.apply_settings(store, events)

    def make_storage(
        self, store: StateStore, operations: OperationRegistry, events: EventBus
    ) -> StorageService:
        """Disks and what servers export as datastores."""

        def stick() -> str | None:
            return self._platform.stick_disk or self._stick_disk

        choice = DiskChoice(self._runner, self._tree, stick)
        mounting = Mounting(self._runner, self._options.run_dir / "datastores")
        storage = StorageService(
            store,
            operations,
            events,
            appliance_drivers(choice, mounting),
            QemuImg(
                self._workers,
                verify_open_disk,
                uid=QEMU_IMG_UID,
                vm_uids=range(FIRST_UID, LAST_UID + 1),
            ),
            self._workers,
            worker_uid=QEMU_IMG_UID,
            machine=machine_mark(),
        )

        async def ask(disk: BlockDisk) -> DiskHealth | None:
            from vmkernel.host.smart import read_health

            return await read_health(self._runner, disk.path)

        health = DiskHealthWatch(self._tree, ask, stick, events)
        disks = Disks(
            choice,
            stick,
            storage.datastores.on_disks,
            health,
            storage.datastores.drivers,
            operations,
        )
        storage.bind_disks(disks)
        return storage

    def make_vms(
        self,
        storage: StorageService,
        operations: OperationRegistry,
        events: EventBus,
    ) -> VmSide | None:
        return assemble_vms(
            HostMode.APPLIANCE,
            run_dir=self._options.run_dir,
            runner=self._runner,
            storage=storage.for_vms,
            operations=operations,
            events=events,
            wish=self._options.accelerator,
            workers=self._workers,
            worker_uid=QEMU_IMG_UID,
        )

    async def guests_end_with_us(self) -> float | None:
        """Guests run on, unless the whole machine goes down."""
        try:
            if await Systemd(self._runner).is_stopping():
                self._platform.stage("ending the virtual machines")
                return _HOST_DOWN_S
        except MicaError as error:
            _log.warning("%s", error)
        return None

    def close(self) -> None:
        """The text on the console stays."""
        self._platform.ending()
