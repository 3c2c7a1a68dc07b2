"""Volumes held still: while one is copied out, nothing may open, change or delete it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from vmkernel.host.files import look
from vmkernel.host.qemu_img import Layer
from vmkernel.model import ErrorCode
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.usage import Users
from vmkernel.storage.volumes.check import VolumeChecks

__all__ = ["StillSource", "StillVolumes"]


@dataclass(frozen=True)
class StillSource:
    """What is copied."""

    entry: VolumeEntry
    chain: tuple[Layer, ...] = ()
    """The files that its file is the difference to, from the upper one."""


@dataclass(eq=False)
class _Held:
    context: contextlib.AbstractContextManager[StillSource]
    source: StillSource | None = None
    count: int = 0


class StillVolumes:
    """Gives volumes that are off."""

    def __init__(self, datastores: Datastores, catalogue: Catalogue, users: Users) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._held: dict[tuple[str, str], _Held] = {}
        self._checks = VolumeChecks(catalogue, users)

    @contextlib.contextmanager
    def held(self, volume_id: str, what: str) -> Iterator[StillSource]:
        """Hold a volume while it is being `what`; `in-use` where a VM has it open. Several may
        hold it for the same: they only read."""
        shared = self._held.get((volume_id, what))
        if shared is None:
            shared = self._held[volume_id, what] = _Held(self._hold(volume_id, what))
            try:
                shared.source = shared.context.__enter__()
            except BaseException:
                del self._held[volume_id, what]
                raise
        shared.count += 1
        try:
            assert shared.source is not None
            yield shared.source
        finally:
            shared.count -= 1
            if not shared.count:
                del self._held[volume_id, what]
                shared.context.__exit__(None, None, None)

    @contextlib.contextmanager
    def _hold(self, volume_id: str, what: str) -> Iterator[StillSource]:
        entry, _ = self._checks.at_rest(volume_id)
        chain = tuple((e.place.data, e.format.value) for e in self._catalogue.chain(entry))
        self._datastores.layout(entry.datastore)
        with self._catalogue.claimed("volume", volume_id, what):
            yield StillSource(entry, chain)

    async def look(self, source: StillSource) -> os.stat_result:
        """What the file system says of its file."""
        entry = source.entry
        try:
            return await self._datastores.look(entry.datastore, lambda: look(entry.place.data))
        except OSError as error:
            raise StorageError(
                ErrorCode.UNAVAILABLE, f"Volume {entry.id} can't be read ({error.strerror})."
            ) from error
