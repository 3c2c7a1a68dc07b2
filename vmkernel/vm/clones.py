"""A VM is made of another that is off, or of a template.

copied      the disks (sharing their blocks where the file system can), the spec, the machine type,
            the firmware's variables
new         UUID, and with it cloud-init's instance id; MAC addresses, user, vsock context id
left out    snapshots; the TPM's state, because a TPM is an identity: what a guest has sealed to it
            stays with the original; autostart; that it is a template

The VM is written down last: a failure before that, or a cancellation, removes what was copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from vmkernel.model import (
    AutostartSpec,
    CloneSpec,
    DiskSpec,
    ErrorCode,
    MicaError,
    Operation,
    Progress,
    Subject,
    VmSpec,
    VmState,
)
from vmkernel.vm.definition import NVRAM_FILES
from vmkernel.vm.driver import VmDriver
from vmkernel.vm.ports import OperationHandle, Operations
from vmkernel.vm.service import VmService
from vmkernel.vm.states import VmRequest
from vmkernel.vm.surroundings import Surroundings

__all__ = ["Clones"]

_log = logging.getLogger(__name__)

_BLOCKS = frozenset(
    {
        VmRequest.START,
        VmRequest.RECONFIGURE,
        VmRequest.ADJUST,
        VmRequest.DELETE,
        VmRequest.SNAPSHOT,
        VmRequest.REVERT,
        VmRequest.HOLD,
    }
)
_SLUG_MAX = 63
_OFF = (VmState.STOPPED, VmState.CRASHED)


class Clones:
    """Makes VMs of others."""

    def __init__(self, vms: VmService, host: Surroundings, operations: Operations) -> None:
        self._vms = vms
        self._host = host
        self._operations = operations

    async def clone(self, vm_id: str, new_id: str, spec: CloneSpec, *, actor: str) -> Operation:
        """Begin to make `new_id` of a VM that is off."""
        driver = self._vms.roster.driver(vm_id)
        await driver.ready()
        if driver.state not in _OFF:
            raise MicaError(
                ErrorCode.CONFLICT, f"VM {vm_id} is {driver.state.value}: shut it down to clone it."
            )
        if self._vms.roster.known(new_id):
            raise MicaError.field(
                "/id", f"There is a VM {new_id} already.", ErrorCode.ALREADY_EXISTS
            )
        old = driver.definition.spec
        disks = tuple(replace(d, volume=_volume_name(new_id, d)) for d in old.disks)
        for disk in disks:
            self._refuse_taken(disk.volume)
        if spec.datastore is not None:
            self._host.storage.vms_folder(spec.datastore)
        wanted = replace(
            old,
            datastore=spec.datastore or old.datastore,
            name=spec.name,
            disks=disks,
            nics=tuple(replace(nic, mac=None) for nic in old.nics),
            vsock=None if old.vsock is None else replace(old.vsock, cid=None),
            autostart=AutostartSpec(),
            template=False,
        )
        held = contextlib.ExitStack()
        held.enter_context(driver.hold(f"it is being cloned to {new_id}", _BLOCKS))

        async def work(handle: OperationHandle) -> None:
            with held:
                made: list[str] = []
                try:
                    await self._copy(old, disks, spec.datastore, made, handle)
                    await self._write_down(driver, new_id, wanted, actor)
                except BaseException:
                    await asyncio.shield(self._discard(made, actor))
                    raise
            self._host.events.publish(
                "vm.cloned",
                Subject(kind="vm", id=new_id),
                data={"source": vm_id},
                actor=actor,
            )

        try:
            return self._operations.begin(
                "vm.clone", Subject(kind="vm", id=new_id), work, actor=actor, cancellable=True
            )
        except BaseException:
            held.close()
            raise

    async def _copy(
        self,
        old: VmSpec,
        disks: Sequence[DiskSpec],
        datastore: str | None,
        made: list[str],
        handle: OperationHandle,
    ) -> None:
        sizes = [self._host.storage.volume(disk.volume).size_bytes for disk in old.disks]
        before = 0
        for source, target, size in zip(old.disks, disks, sizes, strict=True):

            def told(done: int, total: int, before: int = before, size: int = size) -> None:
                done = before + (size * done // total if total else 0)
                handle.progress(
                    Progress(done=done, total=sum(sizes), unit="bytes", stage="copying disks")
                )

            await self._host.storage.copy_volume(
                source.volume, target.volume, datastore=datastore, on_progress=told
            )
            made.append(target.volume)
            before += size

    async def _write_down(self, driver: VmDriver, new_id: str, wanted: VmSpec, actor: str) -> None:
        source = driver.folder

        def prepare(folder: Path) -> None:
            for name in NVRAM_FILES.values():
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
                    (folder / name).chmod(0o600)

        await self._vms.create(
            new_id,
            wanted,
            actor=actor,
            machine_type=driver.definition.machine_type,
            prepare=prepare,
        )

    async def _discard(self, volumes: list[str], actor: str) -> None:
        for volume in volumes:
            try:
                await self._host.storage.delete_volume(volume, actor=actor)
            except (MicaError, OSError) as error:
                _log.warning("volume %s is left over: %s", volume, error)

    def _refuse_taken(self, volume: str) -> None:
        try:
            self._host.storage.volume(volume, while_busy=True)
        except MicaError as error:
            if error.problem.code is ErrorCode.NOT_FOUND:
                return
        raise MicaError.field(
            "/id", f"There is a volume {volume} already.", ErrorCode.ALREADY_EXISTS
        )


def _volume_name(new_id: str, disk: DiskSpec) -> str:
    """The name of the copy of a disk."""
    name = f"{new_id}-{disk.key}"
    if len(name) > _SLUG_MAX:
        raise MicaError.field(
            "/id", f"{new_id} is too long: its disks are to be named like {name}."
        )
    return name
