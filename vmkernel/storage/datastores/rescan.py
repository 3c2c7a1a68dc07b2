"""Looking again at the files of volumes: whether their headers are sound now."""

from __future__ import annotations

from collections.abc import Sequence

from vmkernel.host.blocking_calls import Bounded
from vmkernel.storage.catalogue import Catalogue, look_at_volume
from vmkernel.storage.datastores.entry import Entry
from vmkernel.storage.datastores.registry import Datastores

__all__ = ["VolumeRescan"]

_LOOK_S = 10.0
"""A header each."""


class VolumeRescan:
    """Brings the catalogue up to date with what lies in available datastores."""

    def __init__(self, datastores: Datastores, catalogue: Catalogue, bounded: Bounded) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._bounded = bounded

    async def volumes(self, volumes: Sequence[str]) -> None:
        """Look at these, and at what they stand on."""
        for entry in list(self._datastores.entries.values()):
            if wanted := self._catalogue.with_bases(volumes, entry.id):
                await self._look_at(entry, wanted, wanted[0])

    async def broken(self, entry: Entry) -> None:
        """Look at those of one datastore that could not be used when they were looked at last."""
        if broken := self._catalogue.broken(entry.id):
            await self._look_at(entry, broken, "")

    async def _look_at(self, entry: Entry, wanted: Sequence[str], what: str) -> None:
        layout = entry.layout
        if layout is None or entry.leaving:
            return
        found = await self._bounded.run(
            f"volumes-{entry.id}-{what}",
            lambda: [look_at_volume(layout, entry.id, volume) for volume in wanted],
            timeout_s=_LOOK_S,
            what=f"Datastore {entry.id}",
        )
        if entry.layout is layout:
            for volume in found:
                self._catalogue.seen(volume)
