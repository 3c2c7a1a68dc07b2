"""Reading the files of volumes again: whether their headers are sound now."""

from __future__ import annotations

from collections.abc import Sequence

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.storage.catalogue import Catalogue, probe_volume
from vmkernel.storage.datastores.entry import Entry
from vmkernel.storage.datastores.registry import Datastores

__all__ = ["VolumeRescan"]

_PROBE_S = 10.0
"""For one header each."""


class VolumeRescan:
    """Updates the catalogue from the files of available datastores."""

    def __init__(
        self, datastores: Datastores, catalogue: Catalogue, blocking: BlockingCalls
    ) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._blocking = blocking

    async def volumes(self, volumes: Sequence[str]) -> None:
        """Read these and their backing chains again."""
        for entry in list(self._datastores.entries.values()):
            if wanted := self._catalogue.with_bases(volumes, entry.id):
                await self._probe(entry, wanted, wanted[0])

    async def broken(self, entry: Entry) -> None:
        """Read those volumes of one datastore again that could not be used last time."""
        if broken := self._catalogue.broken(entry.id):
            await self._probe(entry, broken, "")

    async def _probe(self, entry: Entry, wanted: Sequence[str], what: str) -> None:
        layout = entry.layout
        if layout is None or entry.leaving:
            return
        found = await self._blocking.run(
            f"volumes-{entry.id}-{what}",
            lambda: [probe_volume(layout, entry.id, volume) for volume in wanted],
            timeout_s=_PROBE_S,
            what=f"Datastore {entry.id}",
        )
        if entry.layout is layout:
            for volume in found:
                self._catalogue.seen(volume)
