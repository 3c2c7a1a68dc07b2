"""How full the datastores are, and reservations of space.

ok --used >= warning--> warning --used >= critical--> critical
ok <-used < warning-2-- warning <-used < critical-2-- critical
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.errors import DatastoreFullError, from_os_error
from vmkernel.host.files import free_bytes
from vmkernel.model import MicaError, SpaceLevel
from vmkernel.storage.datastores.entry import Entry, Space
from vmkernel.storage.datastores.events import DatastoreEvents
from vmkernel.storage.datastores.registry import GLANCE_S, Datastores

__all__ = [
    "Capacity",
    "HYSTERESIS_PERCENT",
    "SPACE_MARGIN_BYTES",
    "check_thresholds",
    "next_level",
]

HYSTERESIS_PERCENT = 2
"""Below a threshold, so that a file that is created and deleted repeatedly makes no stream of
events."""
SPACE_MARGIN_BYTES = 16 << 20
"""Always left free, for descriptions and the file system itself."""
_MEASURE_S = 20.0
"""Longer than an NFS mount's own time-out."""


class Capacity:
    """Measures datastores, reserves their space, and reports when they become full."""

    def __init__(
        self, datastores: Datastores, events: DatastoreEvents, blocking: BlockingCalls
    ) -> None:
        self._datastores = datastores
        self._events = events
        self._blocking = blocking

    # --- promises -----------------------------------------------------------------------------

    async def measure(self, datastore_id: str) -> None:
        """Measure the free space; `timed-out` if that takes too long.

        `reserve` uses the last measurement, so measure first.
        """
        root = self._datastores.layout(datastore_id).root
        entry = self._datastores.entry(datastore_id)
        if self._datastores.driver_of(entry).remote:
            return  # the monitor does it: each look would be a question to the server
        try:
            figures = await self._datastores.probe(datastore_id, lambda: free_bytes(root))
        except OSError as error:
            raise from_os_error(error, f"Datastore {datastore_id} can't be measured") from error
        self.note(entry, Space(*figures))

    async def unreserved_bytes(self, datastore_id: str) -> int:
        """What can still be written there without a reservation."""
        await self.measure(datastore_id)
        return max(0, self._left(self._datastores.entry(datastore_id)))

    def reserve(self, datastore_id: str, size_bytes: int, *, pointer: str) -> Callable[[], None]:
        """Reserve space before it is written; call the result to release it. See `measure`.

        `insufficient-space` names the field at `pointer`.
        """
        self._datastores.layout(datastore_id)
        entry = self._datastores.entry(datastore_id)
        left = self._left(entry)
        if size_bytes > left:
            raise DatastoreFullError(
                f"{size_bytes} bytes are needed, and {max(0, left)} bytes are free on datastore"
                f" {datastore_id}",
                fields=(pointer,),
            )
        entry.reserved_bytes += size_bytes
        given_back = False

        def release() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                entry.reserved_bytes -= size_bytes

        return release

    # --- figures ------------------------------------------------------------------------------

    async def glance(self, entry: Entry) -> None:
        """Measure local datastores now; remote ones are measured by the monitor."""
        attached = entry.attached
        if attached is None or self._datastores.driver_of(entry).remote:
            return
        with contextlib.suppress(OSError, MicaError):
            figures = await self._datastores.probe(
                entry.id, lambda: free_bytes(attached.root), patience_s=GLANCE_S
            )
            self.note(entry, Space(*figures))

    async def refresh(self, entry: Entry) -> None:
        """Measure the space; the last values are kept if that takes too long."""
        attached = entry.attached
        if attached is None or self._blocking.hangs(f"space-{entry.id}"):
            return
        with contextlib.suppress(OSError, MicaError):
            figures = await self._blocking.run(
                f"space-{entry.id}",
                lambda: free_bytes(attached.root),
                timeout_s=_MEASURE_S,
                what=f"Datastore {entry.id}",
            )
            self.note(entry, Space(*figures))

    def note(self, entry: Entry, space: Space) -> None:
        """Store a measurement, and publish the level if it has changed."""
        entry.space = space
        spec = entry.stored.spec
        used = space.used_percent
        level = next_level(entry.level, used, spec.warning_percent, spec.critical_percent)
        if level is not entry.level:
            entry.level = level
            self._events.space(entry.id, level, used)

    @staticmethod
    def _left(entry: Entry) -> int:
        return entry.space.free_bytes - entry.reserved_bytes - SPACE_MARGIN_BYTES


def check_thresholds(warning_percent: int, critical_percent: int) -> None:
    """`invalid` if the warning would come after the error."""
    if not 1 <= warning_percent <= critical_percent <= 100:
        raise MicaError.field(
            "/spec/warning_percent",
            "It must be between 1 and critical_percent, which is at most 100.",
        )


def next_level(
    before: SpaceLevel, used_percent: float, warning_percent: int, critical_percent: int
) -> SpaceLevel:
    """The present level; it decreases only when usage is clearly below its threshold."""
    critical: float = critical_percent
    warning: float = warning_percent
    if before is SpaceLevel.CRITICAL:
        critical -= HYSTERESIS_PERCENT
    if before is not SpaceLevel.OK:
        warning -= HYSTERESIS_PERCENT
    if used_percent >= critical:
        return SpaceLevel.CRITICAL
    return SpaceLevel.WARNING if used_percent >= warning else SpaceLevel.OK
