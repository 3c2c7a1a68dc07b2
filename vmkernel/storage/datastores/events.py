"""Events about datastores."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from vmkernel.events import EventBus
from vmkernel.model import SpaceLevel, Subject
from vmkernel.storage.drivers.base import News

__all__ = ["DatastoreEvents"]

_log = logging.getLogger(__name__)


class DatastoreEvents:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def state(self, datastore_id: str, state: str, reason: str | None) -> None:
        """It is now available, missing, failed, unmounted, renamed or deleted."""
        self._publish(datastore_id, "datastore.state", reason or "", {"state": state})

    def changed(self, datastore_id: str, actor: str) -> None:
        """Its settings were changed by request."""
        subject = Subject(kind="datastore", id=datastore_id)
        self._bus.publish("datastore.changed", subject, actor=actor)

    def taken_over(self, datastore_id: str, loser: str) -> None:
        """Another host has lost it to this one."""
        text = f"Datastore {datastore_id} was taken over from {loser}."
        self._publish(datastore_id, "datastore.taken-over", text, {"from": loser})

    def space(self, datastore_id: str, level: SpaceLevel, used_percent: float) -> None:
        """It has become full, or has space again."""
        text = f"{used_percent:.0f} % of datastore {datastore_id} are used."
        _log.warning("%s (%s)", text, level)
        data = {"level": level.value, "used_percent": round(used_percent, 1)}
        self._publish(datastore_id, "datastore.space", text, data)

    def news(self, datastore_id: str, news: News) -> None:
        """What its driver has observed."""
        _log.warning("%s", news.text)
        self._publish(datastore_id, news.kind, news.text, news.data)

    def _publish(
        self, datastore_id: str, kind: str, text: str, data: Mapping[str, str | int | float]
    ) -> None:
        subject = Subject(kind="datastore", id=datastore_id)
        self._bus.publish(kind, subject, message=text, data={**data})
