"""What a crash in the last step of a volume's move leaves, and how it is resolved.

  1  the old description says `moving_to` the other datastore      the old volume is valid
  2  the new description is written, with `moved_from`             the new volume is valid
  3  the new data are renamed into place; the old volume is removed

A crash after 1 or before: nothing of the new volume is found (its data are swept), and the mark is
removed. After 2: the old volume is void and is removed. While the other datastore is missing, it
isn't known which case applies: the volume can't be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable

import msgspec

from vmkernel.storage.catalogue import Catalogue, VolumeEntry

__all__ = ["settle_moves"]

_log = logging.getLogger(__name__)


async def settle_moves(
    catalogue: Catalogue,
    void: Iterable[VolumeEntry],
    *,
    present: Collection[str],
    known: Collection[str],
) -> None:
    """Remove what is void, and clear the marks of what stayed; `present` and `known` are
    datastores' UUIDs.
    """
    for volume in void:
        _log.warning("volume %s on %s is void: it was moved", volume.id, volume.datastore)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(volume.place.remove)
    for volume in list(catalogue.volumes.values()):
        record = volume.record
        if record is None or record.moving_to is None:
            continue
        if record.moving_to in present or record.moving_to not in known:
            stays = msgspec.structs.replace(record, moving_to=None)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(volume.place.describe, stays)
                catalogue.described(volume.id, stays)
