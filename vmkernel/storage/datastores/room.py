"""Space of a datastore reserved for one file in the making."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmkernel.host.qemu_img import Layer, QemuImg
from vmkernel.model import Allocation, VolumeFormat
from vmkernel.storage.datastores.capacity import Capacity

__all__ = ["QCOW2_OVERHEAD_BYTES", "Room", "Shape", "qcow2_overhead"]

QCOW2_OVERHEAD_BYTES = 1 << 20
_SLACK_BYTES = 4 << 20
"""What qemu-img may write beyond its measurement: tables that are moved to grow."""

Shape = tuple[VolumeFormat, Allocation, int]
"""The format, allocation and size in bytes of a volume to be made."""


def qcow2_overhead(size_bytes: int) -> int:
    """What a qcow2 of that size takes at most besides its data: 8 octets in an L2 table and 2 of
    reference count for each cluster of 64 KiB, and its first tables."""
    return QCOW2_OVERHEAD_BYTES + size_bytes // 6000


class Room:
    """A reservation until `release`; it grows if more is needed, or refuses."""

    def __init__(
        self, capacity: Capacity, datastore: str, size_bytes: int, *, pointer: str
    ) -> None:
        self._capacity = capacity
        self._datastore = datastore
        self._pointer = pointer
        self.size_bytes = size_bytes
        self._releases = [capacity.reserve(datastore, size_bytes, pointer=pointer)]

    async def grow_to(self, size_bytes: int) -> None:
        """`insufficient-space` if the rest isn't free."""
        more = size_bytes - self.size_bytes
        if more <= 0:
            return
        await self._capacity.measure(self._datastore)
        self._releases.append(self._capacity.reserve(self._datastore, more, pointer=self._pointer))
        self.size_bytes = size_bytes

    def release(self) -> None:
        while self._releases:
            self._releases.pop()()

    async def for_copy(
        self,
        qemu_img: QemuImg,
        source: Layer,
        shape: Shape,
        *,
        chain: Sequence[Layer] = (),
        snapshot: str | None = None,
        overlay: Path | None = None,
    ) -> int:
        volume_format, allocation, size_bytes = shape
        if allocation is not Allocation.THICK and (
            chain or source[1] != "raw" or volume_format is not VolumeFormat.RAW
        ):
            needed = await qemu_img.measure(
                *source, chain=chain, snapshot=snapshot, overlay=overlay
            )
            await self.grow_to(min(needed, size_bytes + qcow2_overhead(size_bytes)) + _SLACK_BYTES)
        # A raw file is as long as the disk, however little of it is written.
        return max(self.size_bytes, size_bytes if volume_format is VolumeFormat.RAW else 0)
