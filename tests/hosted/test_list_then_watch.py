"""Who lists and then follows knows what there is, however much changes meanwhile."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from urllib.parse import parse_qsl

import pytest

from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica
from vmkernel.model import Event, Role, TokenSpec, VmSpec, VolumeSpec

MIB = 1 << 20
SPEC = VmSpec(datastore="main", memory_bytes=32 * MIB)


def _change(host: HostedMica, number: int, rounds: int) -> None:
    """Make, change and delete VMs of one's own, as fast as it goes."""
    choice = random.Random(number)
    with host.client() as mica:
        there: set[str] = set()
        for step in range(rounds):
            name = f"w{number}-{choice.randrange(4)}"
            if name not in there:
                mica.create_vm(name, SPEC)
                there.add(name)
            elif choice.random() < 0.3:
                mica.delete_vm(name)
                there.discard(name)
            else:
                mica.patch_vm(name, {"description": f"step {step}"})


def _follow(mica: Mica, known: dict[str, int], after: str, until: str) -> int:
    """Apply events to what a list showed, until a mark; the number of events."""
    count = 0
    for event in mica.events(after, types=["vm.*", "token.*"], reconnect=False):
        count += 1
        if event.subject.id == until:
            return count
        if event.subject.kind != "vm":
            continue
        if event.type == "vm.deleted":
            known.pop(event.subject.id, None)
        elif event.object is not None:
            known[event.subject.id] = event.object["revision"]
    raise AssertionError("the stream ended")


def test_nothing_is_missed_between_a_list_and_the_stream(host: HostedMica, mica: Mica) -> None:
    threads = [
        threading.Thread(target=_change, args=(host, number, 40), daemon=True)
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    starts: list[tuple[str, dict[str, int]]] = []
    with checked_client(mica) as http:
        while any(thread.is_alive() for thread in threads):
            answer = http.get("/v1/vms", params={"limit": 1000})
            listed = {vm["id"]: vm["revision"] for vm in answer.json()["items"]}
            starts.append((answer.headers["mica-event-id"], listed))
            threads[0].join(0.05)
    for thread in threads:
        thread.join(60)
    assert len(starts) >= 3
    mica.create_token("the-mark", TokenSpec(role=Role.VIEWER))
    now = {vm.id: vm.revision for vm in mica.vms()}
    for after, known in starts[:: max(1, len(starts) // 20)]:
        assert _follow(mica, known, after, "the-mark") > 0
        assert known == now, after
    mica.delete_token("the-mark")
    for name in now:
        mica.delete_vm(name)


@pytest.fixture
def labelled(mica: Mica) -> Iterator[str]:
    """A VM with a label, and where the events about it begin."""
    after = mica.event_position()
    mica.create_vm("labelled", VmSpec(datastore="main", memory_bytes=32 * MIB, labels={"env": "a"}))
    yield after
    mica.delete_vm("labelled")


def _read(mica: Mica, after: str, until: str, **wanted: list[str]) -> list[Event]:
    found = []
    for event in mica.events(after, reconnect=False, **wanted):
        found.append(event)
        if event.type == until:
            return found
    raise AssertionError("the stream ended")


def test_streams_are_filtered(mica: Mica, labelled: str) -> None:
    mica.create_vm("other", SPEC)
    mica.patch_vm("labelled", {"labels": {"env": "b"}})
    mica.delete_vm("other")
    mica.wait(mica.create_volume("filtered", VolumeSpec(datastore="main", size_bytes=MIB)))
    mica.delete_volume("filtered")
    left = _read(mica, labelled, "vm.updated", labels=["env=a"])
    assert [event.type for event in left] == ["vm.created", "vm.updated"]
    assert left[1].object is not None
    assert left[1].object["spec"]["labels"] == {"env": "b"}
    others = _read(mica, labelled, "vm.deleted", subjects=["vm/other"], types=["vm.*"])
    assert [event.type for event in others] == ["vm.created", "vm.deleted"]
    volumes = _read(mica, labelled, "volume.deleted", subjects=["volume"])
    types = [event.type for event in volumes if not event.type.startswith(("audit", "operation"))]
    assert types == ["volume.created", "volume.deleted"]
    with pytest.raises(RefusedError) as caught:
        next(mica.events(types=["vm.exploded"], reconnect=False))
    assert caught.value.problem.status == 422
    assert "vm.state" in caught.value.problem.errors[0].detail


def test_a_position_of_another_time_is_gone(mica: Mica) -> None:
    with pytest.raises(RefusedError) as caught:
        next(mica.events("000000000000-000000000001", reconnect=False))
    assert (caught.value.problem.status, caught.value.code) == (410, "gone")


def test_browser_follows_by_its_ticket(host: HostedMica, mica: Mica) -> None:
    ticket = mica.event_ticket()
    with host.anonymous() as browser:
        for _ in range(2):
            path, _, query = ticket.events.partition("?")
            with browser.transport.stream(
                path,
                headers={"accept": "text/event-stream"},
                idle_timeout_s=20,
                parameters=[*parse_qsl(query), ("type", "token.*")],
            ) as answer:
                assert next(answer.lines).startswith(":")
                mica.create_token("brief", TokenSpec(role=Role.VIEWER))
                mica.delete_token("brief")
                for line in answer.lines:
                    if line.startswith("data:"):
                        event = json.loads(line[5:])
                        break
                assert (event["type"], event["subject"]["id"]) == ("token.created", "brief")
                assert event["object"]["spec"]["role"] == "viewer", "an admin's token"
