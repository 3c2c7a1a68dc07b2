"""Hosted mode: an ordinary program on a machine that Mica doesn't own."""

from __future__ import annotations

from pathlib import Path

from vmkernel.adapters import OpenedMedium, Platform
from vmkernel.events import EventBus
from vmkernel.host.kvm import glance_at_kvm
from vmkernel.host.machine_mark import machine_mark
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.runner import Runner
from vmkernel.host.worker import Workers
from vmkernel.model import HostMode
from vmkernel.operations import OperationRegistry
from vmkernel.options import Options
from vmkernel.platform.hosted import HostedPlatform
from vmkernel.platform.programs import check_programs
from vmkernel.state import StateStore
from vmkernel.state.media import FileMedium
from vmkernel.storage.drivers.registry import hosted_drivers
from vmkernel.storage.formats.open_disk import verify_open_disk
from vmkernel.storage.service import StorageService
from vmkernel.vm.assembly import AcceleratorWish, assemble_vms
from vmkernel.vm.side import VmSide

__all__ = ["HostedAdapters"]

_STOP_VMS_S = 30.0


class HostedAdapters:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._medium: FileMedium | None = None
        programs = {
            "qemu-system-x86_64": options.qemu,
            "qemu-img": options.qemu_img,
            "swtpm": options.swtpm,
        }
        self._runner = Runner({name: path for name, path in programs.items() if path})
        self._platform = HostedPlatform()
        self._workers = Workers(self._runner, allow_loopback=options.pull_from_loopback)

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
        """A directory's lifetime is independent of a boot."""
        return False

    async def check_programs(self) -> None:
        """The machine's programs, which may be missing or too old."""
        kvm = glance_at_kvm() if self._options.accelerator is AcceleratorWish.KVM else None
        self._platform.note_programs(
            await check_programs(self._runner, data_dir=self._options.qemu_dir, kvm=kvm)
        )

    async def open_medium(self) -> OpenedMedium:
        """A file; OSError ends the start, because the user can see it."""
        assert self._options.state_dir is not None
        self._options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._medium = FileMedium(self._options.state_dir / "state.log")
        return OpenedMedium(self._medium)

    async def apply_settings(self, store: StateStore, events: EventBus) -> None: ...

    def make_storage(
        self, store: StateStore, operations: OperationRegistry, events: EventBus
    ) -> StorageService:
        return StorageService(
            store,
            operations,
            events,
            hosted_drivers(),
            QemuImg(self._workers, verify_open_disk),
            self._workers,
            machine=machine_mark(fallback=Path("/etc/machine-id")),
        )

    def make_vms(
        self,
        storage: StorageService,
        operations: OperationRegistry,
        events: EventBus,
    ) -> VmSide | None:
        return assemble_vms(
            HostMode.HOSTED,
            run_dir=self._options.run_dir,
            runner=self._runner,
            storage=storage.for_vms,
            operations=operations,
            events=events,
            wish=self._options.accelerator,
            data_dir=self._options.qemu_dir,
            boot_name=self._options.boot_name,
            workers=self._workers,
        )

    async def guests_end_with_us(self) -> float | None:
        """Guests keep running, unless the command line says otherwise."""
        return _STOP_VMS_S if self._options.stop_vms else None

    def close(self) -> None:
        """The state's file is free for another one."""
        if self._medium is not None:
            self._medium.close()
