"""Volumes made from others for a clone of a VM: copies, of the present content or of a snapshot,
and linked ones, whose backing volume must not change from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from vmkernel.host.files import reflink, remove, sync_file
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import ErrorCode, VolumeFormat, VolumeSpec
from vmkernel.model.volumes import MIN_VOLUME_BYTES, SECTOR_BYTES
from vmkernel.storage.catalogue import CHAIN_MAX, Catalogue, VolumeEntry
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.errors import BrieflyBusy, StorageError
from vmkernel.storage.patience import patient
from vmkernel.storage.ports import DiskPast
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.files import make_file, open_to_readers
from vmkernel.storage.volumes.service import Volumes

__all__ = ["VolumeClones"]


class VolumeClones:
    def __init__(
        self,
        volumes: Volumes,
        datastores: Datastores,
        catalogue: Catalogue,
        usage: VmUsage,
        qemu_img: QemuImg,
    ) -> None:
        self._volumes = volumes
        self._datastores = datastores
        self._catalogue = catalogue
        self._usage = usage
        self._qemu_img = qemu_img

    @patient
    async def copy(
        self,
        source_id: str,
        new_id: str,
        *,
        datastore: str | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        clone: str | None = None,
        past: DiskPast | None = None,
    ) -> bool:
        """Make `new_id` a copy of a volume that no running VM uses, or of a VM's snapshot of it,
        within the caller's operation: durable on return, nothing is left if it fails or is
        cancelled. True if the two share their blocks.
        """
        source, record = (
            self._volumes.checks.sound(source_id)
            if past
            else self._volumes.checks.at_rest(source_id)
        )
        spec = VolumeSpec(
            datastore=datastore or source.datastore,
            size_bytes=_size(source),
            format=source.format,
            allocation=record.allocation,
            source_volume=source_id,
        )
        survey = await self._volumes.survey(new_id, spec, None, source)
        again = (
            self._volumes.checks.sound(source_id)
            if past
            else self._volumes.checks.at_rest(source_id)
        )
        if again != (source, record):
            raise BrieflyBusy(f"Volume {source_id} is being changed; try again.")
        if past is None:
            self._volumes.source_volume(spec)
        held, place, room = self._volumes.prepare(
            new_id, spec, None, source, survey, shared=past is not None
        )
        shared = False

        async def fill(target: Path) -> None:
            nonlocal shared
            async with self._kept(source, past) as (origin, tag):
                shared = await self._volumes.fill_copy(
                    _ProgressAlone(on_progress), spec, origin, room, target, snapshot=tag
                )

        with held:
            async with self._datastores.using(spec.datastore):
                await self._volumes.make(
                    _ProgressAlone(on_progress), new_id, spec, place, fill, clone=clone
                )
        copy = self._volumes.usable(new_id)
        if shared and copy.format is VolumeFormat.QCOW2 and self._usage.vms.snapshots_of(source_id):
            # A copy that shares its blocks has taken them along.
            for tag in sorted(await self._qemu_img.snapshots(copy.place.data)):
                await self._qemu_img.snapshot("-d", tag, copy.place.data)
        return shared

    @patient
    async def link(self, base_id: str, new_id: str, *, clone: str | None = None) -> None:
        """Make `new_id` an empty qcow2 linked to a volume that no running VM uses, within the
        caller's operation; else as `copy`.
        """
        base, record = self._volumes.checks.at_rest(base_id)
        if len(self._catalogue.chain(base)) >= CHAIN_MAX:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"{CHAIN_MAX} volumes are below volume {base_id}: flatten it first.",
            )
        spec = VolumeSpec(
            datastore=base.datastore,
            size_bytes=_size(base),
            source_volume=base_id,
        )
        survey = await self._volumes.survey(new_id, spec, None, None)
        if self._volumes.checks.at_rest(base_id) != (base, record):
            raise BrieflyBusy(f"Volume {base_id} is being changed; try again.")
        held, place, _ = self._volumes.prepare(new_id, spec, None, None, survey)

        async def fill(target: Path) -> None:
            await asyncio.to_thread(make_file, target)
            await asyncio.to_thread(open_to_readers, base.place.data)
            await self._qemu_img.create_linked(
                target,
                spec.size_bytes,
                backing_name=base.place.data.name,
                backing_format=base.format.value,
            )
            await asyncio.to_thread(sync_file, target)

        with held, self._catalogue.locked("volume", base_id, "linked to"):
            async with self._datastores.using(spec.datastore):
                await self._volumes.make(
                    _ProgressAlone(lambda _done, _total: None),
                    new_id,
                    spec,
                    place,
                    fill,
                    clone=clone,
                    base=(base, record),
                )

    @contextlib.asynccontextmanager
    async def _kept(
        self, source: VolumeEntry, past: DiskPast | None
    ) -> AsyncIterator[tuple[VolumeEntry, str | None]]:
        """What is to be copied, and the name of the snapshot inside it. A raw file of a snapshot
        belongs to its VM: it is first cloned here under another name, sharing its blocks.
        """
        if past is None or past.file is None:
            yield source, past.tag if past else None
            return
        layout = self._datastores.layout(source.datastore)
        path = layout.incoming / f"past-{secrets.token_hex(8)}.raw"
        try:
            await asyncio.to_thread(make_file, path)
            if not await asyncio.to_thread(reflink, past.file, path):
                raise StorageError(
                    ErrorCode.UNSUPPORTED,
                    f"Datastore {source.datastore} can't share the blocks of {past.file.name}.",
                )
            yield replace(source, place=replace(source.place, data=path)), None
        finally:
            await asyncio.shield(asyncio.to_thread(remove, path))


def _size(entry: VolumeEntry) -> int:
    """A size that a new volume may have."""
    return max(MIN_VOLUME_BYTES, -(-entry.size_bytes // SECTOR_BYTES) * SECTOR_BYTES)


class _ProgressAlone:
    """The progress of `make` within another operation."""

    def __init__(self, on_progress: Callable[[int, int], None]) -> None:
        self._on_progress = on_progress

    def advance(self, done: int, total: int = 0, *, stage: str = "") -> None:
        del stage
        self._on_progress(done, total)

    def commit_point(self) -> None: ...
