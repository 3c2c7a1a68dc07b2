"""The ring of slots: a commit writes the next slot, the newest verified generation counts.

generation   5     6     3     4
slot        [0]   [1]   [2]   [3]
                   ^ newest; the next commit writes slot 2

A write that is torn or lost leaves the newest older slot standing, because it is never the slot
that is being written. After a failed write the same slot is tried again, so that repeated failures
can't wear through the good ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vmkernel.model import ErrorCode
from vmkernel.state.codec import HEADER_BYTES, Header, SlotFault, Snapshot, decode, encode, peek
from vmkernel.state.errors import StateError

__all__ = ["Found", "Medium", "StateLog"]


class Medium(Protocol):
    """Slots of equal size on something that lasts. Its calls block and raise OSError."""

    @property
    def slot_bytes(self) -> int:
        """The size of one slot."""
        ...

    @property
    def slot_count(self) -> int:
        """How many slots there are; at least two."""
        ...

    def read(self, slot: int, length: int) -> bytes:
        """The first `length` bytes of a slot."""
        ...

    def write(self, slot: int, data: bytes) -> None:
        """Write the beginning of a slot; durable on return."""
        ...


@dataclass(frozen=True)
class Found:
    """What the log held when it was opened."""

    snapshot: Snapshot | None
    """The newest verified one whose schema is known."""
    damaged: int = 0
    """Slots that don't hold together."""
    newer_schema: int | None = None
    """The schema of a newer snapshot that this version can't read."""
    lost: bool = False
    """True if no slot is valid although more than a first write had been tried."""


class StateLog:
    """Reads and appends snapshots; not safe for concurrent use."""

    def __init__(self, medium: Medium) -> None:
        if medium.slot_count < 2:
            raise ValueError("a state log needs at least two slots")
        self._medium = medium
        self._next_slot = 0
        self._next_generation = 1

    @property
    def capacity_bytes(self) -> int:
        """The largest payload."""
        return self._medium.slot_bytes - HEADER_BYTES

    def load(self, known_schema: int) -> Found:
        """Find the newest verified snapshot with a schema of at most `known_schema`."""
        headers: list[tuple[int, Header]] = []
        damaged: list[int] = []
        for slot in range(self._medium.slot_count):
            header = peek(self._medium.read(slot, HEADER_BYTES))
            if isinstance(header, Header):
                headers.append((slot, header))
            elif header is SlotFault.DAMAGED:
                damaged.append(slot)
        headers.sort(key=lambda item: item[1].generation, reverse=True)
        newer_schema: int | None = None
        newest = True
        chosen: Snapshot | None = None
        for slot, header in headers:
            snapshot = self._read(slot, header)
            if snapshot is None:
                damaged.append(slot)
                continue
            if newest:
                newest = False
                self._next_slot = (slot + 1) % self._medium.slot_count
                self._next_generation = snapshot.generation + 1
            if snapshot.schema <= known_schema:
                chosen = snapshot
                break
            newer_schema = max(newer_schema or 0, snapshot.schema)
        # A damaged slot may have been answered for: no later commit may reuse its generation.
        claimed = [header.generation for slot, header in headers if slot in damaged]
        self._next_generation = max(
            [self._next_generation, *(g + 1 for g in claimed if g < 1 << 62)]
        )
        return Found(
            chosen,
            damaged=len(damaged),
            newer_schema=newer_schema,
            lost=chosen is None
            and (newer_schema is not None or any(slot != 0 for slot in damaged)),
        )

    def append(self, schema: int, payload: bytes) -> int:
        """Commit a payload; returns its generation. OSError if the medium failed."""
        if len(payload) > self.capacity_bytes:
            raise StateError(
                ErrorCode.INSUFFICIENT_RESOURCES,
                f"The host configuration would take {len(payload)} bytes, and at most "
                f"{self.capacity_bytes} can be kept; delete tokens or datastores first.",
            )
        generation = self._next_generation
        self._next_generation += 1
        self._medium.write(self._next_slot, encode(Snapshot(schema, generation, payload)))
        self._next_slot = (self._next_slot + 1) % self._medium.slot_count
        return generation

    def _read(self, slot: int, header: Header) -> Snapshot | None:
        if header.total_bytes > self._medium.slot_bytes:
            return None
        snapshot = decode(self._medium.read(slot, header.total_bytes))
        return snapshot if isinstance(snapshot, Snapshot) else None
