"""Server-sent events and operations over HTTPS."""

from __future__ import annotations

import threading
import time

import pytest

from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica
from vmkernel.model import Event, OperationState, Role, TokenSpec, VolumeSpec

MIB = 1 << 20


def _collect(
    host: HostedMica, after: str | None, wanted: str
) -> tuple[threading.Thread, list[Event]]:
    seen: list[Event] = []
    ready = threading.Event()

    def follow() -> None:
        with host.client() as mica:
            events = mica.events(after, reconnect=False)
            ready.set()
            for event in events:
                seen.append(event)
                if event.type == wanted:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    ready.wait(5)
    time.sleep(0.5)
    return thread, seen


def test_events_come_and_can_be_taken_up_again(host: HostedMica, mica: Mica) -> None:
    thread, seen = _collect(host, None, "token.deleted")
    mica.create_token("brief", TokenSpec(role=Role.VIEWER))
    mica.delete_token("brief")
    thread.join(10)
    assert not thread.is_alive()
    created = next(e for e in seen if e.type == "token.created")
    assert (created.subject.kind, created.subject.id, created.actor) == ("token", "brief", "admin")
    thread, again = _collect(host, created.id, "token.deleted")
    thread.join(10)
    assert "token.deleted" in [event.type for event in again]
    assert created.id not in [event.id for event in again]


def test_operations_are_listed_waited_for_and_cancelled(mica: Mica) -> None:
    operation = mica.create_volume("brief", VolumeSpec(datastore="main", size_bytes=MIB))
    finished = mica.wait(operation)
    assert finished.state is OperationState.SUCCEEDED
    assert operation.id in [each.id for each in mica.operations()]
    with checked_client(mica) as http:
        response = http.get(f"/v1/operations/{operation.id}", params={"wait": 10})
        assert response.elapsed.total_seconds() < 5
        assert http.post(f"/v1/operations/{operation.id}/cancel").status_code in (200, 409)
        assert http.get("/v1/operations/none-such").status_code == 404
    mica.delete_volume("brief")


def test_operation_that_fails(mica: Mica) -> None:
    with pytest.raises((OperationFailedError, RefusedError)) as failed:
        mica.wait(
            mica.create_volume(
                "late", VolumeSpec(datastore="main", size_bytes=MIB, source_image="none-such")
            )
        )
    assert "none-such" in str(failed.value)
