"""Deliveries that wait, as files: they outlast this process, not the host's power.

RUN_DIR/webhooks/<webhook>/<number>-<message id>    the body
Nothing of it is written to the stick: what waits at power-off is lost, as the ring of events is.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Delivery", "MAX_WAITING", "MAX_WAITING_BYTES", "Spool"]

_log = logging.getLogger(__name__)

MAX_WAITING = 256
MAX_WAITING_BYTES = 1 << 20
"""Of one webhook: 32 of them take 32 MiB of memory at most, as the run folder is in memory."""
_BODY_BYTES = 64 << 10
"""An event has 16 KiB of object and a few of text; a longer file is none of ours."""


@dataclass
class Delivery:
    """One event for one webhook."""

    message_id: str
    body: bytes
    since_s: float
    """Unix time at which it was queued."""
    attempts: int = 0
    path: Path | None = None
    """None if it could not be written: it is then kept in memory alone."""


class Spool:
    """What waits for one webhook, oldest first; owned by the event loop's thread.

    Writes are done at once, within the publishing of an event, so that none is lost between: the
    run folder is in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: OrderedDict[str, Delivery] = OrderedDict()
        self._bytes = 0
        self._number = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def load(self) -> None:
        """Take up what an earlier process has left."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = sorted(self._folder.iterdir())
        except OSError as error:
            _log.warning("deliveries of webhooks can't be kept in %s: %s", self._folder, error)
            return
        for path in found:
            number, _, message_id = path.name.partition("-")
            try:
                status = path.lstat()
                if path.suffix or not number.isdigit() or status.st_size > _BODY_BYTES:
                    path.unlink()
                    continue
                body = path.read_bytes()
            except OSError as error:
                _log.warning("a delivery of a webhook can't be read: %s", error)
                continue
            self._number = max(self._number, int(number))
            self._hold(Delivery(message_id, body, status.st_mtime, path=path))

    def add(self, message_id: str, body: bytes, now_s: float) -> None:
        """Queue an event; the oldest go if there are too many."""
        self._number += 1
        path = self._folder / f"{self._number:012d}-{message_id}"
        new = path.with_suffix(".new")
        delivery = Delivery(message_id, body, now_s, path=path)
        try:
            new.write_bytes(body)
            new.rename(path)
        except OSError as error:
            _log.warning("a delivery of a webhook is kept in memory alone: %s", error)
            delivery.path = None
        self._hold(delivery)

    def oldest(self) -> Delivery | None:
        """The delivery whose turn it is."""
        return next(iter(self._waiting.values()), None)

    def first(self, count: int) -> list[Delivery]:
        """The deliveries whose turn it is."""
        return list(self._waiting.values())[:count]

    def postpone(self, delivery: Delivery) -> None:
        """Let the others come first, so that one that is refused doesn't hold them up."""
        if delivery.message_id in self._waiting:
            self._waiting.move_to_end(delivery.message_id)

    def done(self, delivery: Delivery) -> None:
        """It was delivered."""
        if self._waiting.pop(delivery.message_id, None) is None:
            return
        self._bytes -= len(delivery.body)
        if delivery.path is not None:
            with contextlib.suppress(OSError):
                delivery.path.unlink()

    def drop(self, delivery: Delivery) -> None:
        """It is given up."""
        self.dropped += 1
        self.done(delivery)

    def clear(self) -> None:
        """Give up all, and leave nothing behind."""
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> None:
        """The webhook is gone."""
        self._waiting.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hold(self, delivery: Delivery) -> None:
        self._waiting[delivery.message_id] = delivery
        self._bytes += len(delivery.body)
        while len(self._waiting) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
            self.drop(next(iter(self._waiting.values())))
