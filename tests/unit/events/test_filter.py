"""What passes a filter of events, and which filters can be meant."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

import vmkernel
from vmkernel.events import EventBus, make_filter
from vmkernel.events.filter import SUBJECT_KINDS
from vmkernel.model import (
    EVENT_TYPES,
    ErrorCode,
    Event,
    MicaError,
    Record,
    Role,
    Subject,
    TokenSpec,
)
from vmkernel.model.vm import Labels


class _Spec(Record, frozen=True, kw_only=True):
    labels: Labels = {}
    text: str = ""


class _Thing(Record, frozen=True, kw_only=True):
    id: str
    spec: _Spec = _Spec()


def _thing(name: str = "web", text: str = "", **labels: str) -> _Thing:
    return _Thing(id=name, spec=_Spec(labels=labels, text=text))


class World:
    """A bus with things that change."""

    def __init__(self, **limits: int) -> None:
        self.bus = EventBus(**limits)
        self.things: dict[str, Record] = {}
        self.bus.objects.add("vm", self._read)
        self.bus.objects.add("token", self._read, role=Role.ADMIN)

    def _read(self, name: str) -> Record:
        if name not in self.things:
            raise MicaError(ErrorCode.NOT_FOUND, "gone")
        return self.things[name]

    def change(self, event_type: str, thing: _Thing, before: Record | None = None) -> None:
        self.things[thing.id] = thing
        self.bus.publish(event_type, Subject(kind="vm", id=thing.id), before=before)

    def delete(self, thing: _Thing) -> None:
        del self.things[thing.id]
        self.bus.publish("vm.deleted", Subject(kind="vm", id=thing.id), before=thing)

    def read(self, role: Role | None = Role.VIEWER, **wanted: list[str]) -> list[Event]:
        """All that a reader gets who follows from the first on."""
        with self.bus.subscribe(None, make_filter(**wanted), role=role) as reader:
            reader._position = self.bus._first
            found = []
            while (event := reader.poll()) is not None:
                found.append(event)
            return found


def test_types_subjects_and_labels_all_have_to_fit() -> None:
    world = World()
    world.change("vm.created", _thing("web", env="prod"))
    world.change("vm.created", _thing("db", env="test"))
    world.change("vm.state", _thing("web", env="prod"))
    world.bus.publish("volume.created", Subject(kind="volume", id="web"))
    world.bus.publish(
        "operation.started",
        Subject(kind="operation", id="op-1"),
        data={"subject_kind": "vm", "subject_id": "web"},
    )

    def found(**wanted: list[str]) -> list[tuple[str, str]]:
        return [(event.type, event.subject.id) for event in world.read(Role.VIEWER, **wanted)]

    assert len(found()) == 5
    made = [("vm.created", "web"), ("vm.created", "db")]
    assert found(types=["vm.*"]) == [*made, ("vm.state", "web")]
    assert found(types=["*.created"], subjects=["vm"]) == made
    either = [("vm.state", "web"), ("volume.created", "web")]
    assert found(types=["vm.state", "volume.created"]) == either
    assert found(subjects=["vm/web"]) == [
        ("vm.created", "web"),
        ("vm.state", "web"),
        ("operation.started", "op-1"),
    ]
    assert found(labels=["env=prod"]) == [("vm.created", "web"), ("vm.state", "web")]
    assert found(labels=["env"], types=["vm.created"]) == made
    assert found(labels=["env=prod", "team"]) == []


def test_what_leaves_a_label_and_what_is_deleted_is_told_to_who_followed_it() -> None:
    world = World()
    world.change("vm.updated", _thing(env="dev"), before=_thing(env="prod"))
    world.change("vm.state", _thing(env="dev"))
    world.delete(_thing(env="dev"))
    assert [event.type for event in world.read(labels=["env=prod"])] == ["vm.updated"]
    dev = world.read(labels=["env=dev"])
    assert [event.type for event in dev] == ["vm.updated", "vm.state", "vm.deleted"]
    assert dev[0].object == {"id": "web", "spec": {"labels": {"env": "dev"}, "text": ""}}
    assert dev[2].object is not None, "as it was"


@pytest.mark.parametrize(
    ("wanted", "pointer", "allowed"),
    [
        ({"types": ["vm.exploded"]}, "type", "vm.state"),
        ({"types": ["VM.*"]}, "type", "vm.state"),
        ({"types": [""]}, "type", "vm.state"),
        ({"types": ["vm.stat?"]}, "type", "vm.state"),
        ({"types": ["[v]m.state"]}, "type", "vm.state"),
        ({"subjects": ["machine/web"]}, "subject", "volume"),
        ({"subjects": ["vm/"]}, "subject", "KIND/ID"),
        ({"subjects": ["/web"]}, "subject", "KIND/ID"),
        ({"labels": ["=prod"]}, "label", "KEY=VALUE"),
    ],
)
def test_a_filter_that_nothing_could_pass_is_refused_with_what_is_allowed(
    wanted: dict[str, list[str]], pointer: str, allowed: str
) -> None:
    with pytest.raises(MicaError) as caught:
        make_filter(**wanted)
    problem = caught.value.problem
    assert problem.code is ErrorCode.INVALID
    assert [each.pointer for each in problem.fields] == [pointer]
    assert allowed in problem.fields[0].detail


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(MicaError) as caught:
        make_filter(["x.y", "vm.state", "z.*"], ["nothing"], ["="])
    assert [each.pointer for each in caught.value.problem.fields] == [
        *("type", "type", "subject", "label")
    ]


def test_an_object_is_shown_to_who_may_get_it() -> None:
    world = World()
    world.things["ci"] = _Thing(id="ci")
    world.bus.publish("token.created", Subject(kind="token", id="ci"))
    assert [event.object for event in world.read(Role.VIEWER)] == [None]
    assert [event.object for event in world.read(Role.OPERATOR)] == [None]
    assert world.read(Role.ADMIN)[0].object is not None
    assert world.read(None)[0].object is None


def test_secrets_are_taken_out_of_what_is_given_and_what_is_read() -> None:
    world = World()
    world.bus.objects.add("vm", world._read, conceal=lambda thing: _thing(thing.id, text="***"))
    world.change("vm.updated", _thing(text="secret"), before=_thing(text="secret"))
    world.delete(_thing(text="secret"))
    assert [event.object["spec"]["text"] for event in world.read() if event.object] == ["***"] * 2


def test_large_objects_and_those_of_old_events_are_left_out() -> None:
    world = World(objects_bytes=10_000)
    world.change("vm.updated", _thing(text="x" * 20_000))
    for _ in range(20):
        world.change("vm.updated", _thing(text="x" * 1000))
    found = [event.object is not None for event in world.read()]
    assert found == [False] * 12 + [True] * 9
    assert world.bus._held_bytes <= 10_000


def test_objects_leave_with_their_events() -> None:
    world = World(capacity=4)
    for _ in range(50):
        world.change("vm.updated", _thing(text="x" * 100))
    assert len(world.bus._with_objects) == 4
    assert world.bus._held_bytes == sum(len(e.encoded or b"") for e in world.bus._ring)


def test_a_fault_in_reading_an_object_costs_the_object_alone() -> None:
    world = World()

    def broken(name: str) -> Record:
        raise RuntimeError(name)

    world.bus.objects.add("vm", broken)
    world.bus.publish("vm.state", Subject(kind="vm", id="web"))
    assert [(event.type, event.object) for event in world.read()] == [("vm.state", None)]


def test_what_must_be_read_later_comes_as_it_is_when_it_is_sent() -> None:
    async def scenario() -> None:
        bus = EventBus()

        async def read(name: str) -> Record:
            await asyncio.sleep(0)
            if name == "gone":
                raise MicaError(ErrorCode.NOT_FOUND, "gone")
            return TokenSpec(role=Role.VIEWER, description=name)

        bus.objects.add_later("volume", read)
        with bus.subscribe(None, role=Role.VIEWER) as reader:
            bus.publish("volume.created", Subject(kind="volume", id="data"))
            bus.publish("volume.deleted", Subject(kind="volume", id="gone"))
            bus.publish("audit.changed", Subject(kind="volume", id="data"))
            events = [await reader.next_with_object() for _ in range(3)]
        assert [event and event.object and event.object["description"] for event in events] == [
            *("data", None, None)
        ]

    asyncio.run(scenario())


def test_a_filtered_reader_is_told_its_position_before_the_ring_forgets_it() -> None:
    bus = EventBus(capacity=2048)
    with bus.subscribe(None, make_filter(["token.*"])) as reader:
        found = []
        for _ in range(5000):
            bus.publish("vm.state", Subject(kind="vm", id="web"))
            if (event := reader.poll()) is not None:
                found.append(event)
        assert [event.type for event in found] == ["events.position"] * 4
        last = found[-1].id
    with bus.subscribe(last, make_filter(["token.*"]), gapless=True) as again:
        assert again.poll() is None
        bus.publish("token.created", Subject(kind="token", id="ci"))
        event = again.poll()
        assert event is not None
        assert event.type == "token.created"


def test_a_gap_is_refused_to_who_lists_again() -> None:
    bus = EventBus(capacity=4)
    before = bus.position
    bus.publish("vm.state", Subject(kind="vm", id="web"))
    with bus.subscribe(before, gapless=True) as reader:
        assert reader.poll() is not None
        assert reader.poll() is None
    for _ in range(4):
        bus.publish("vm.state", Subject(kind="vm", id="web"))
    for too_old in (before, "000000000000-000000000002"):
        with pytest.raises(MicaError) as caught:
            bus.subscribe(too_old, gapless=True)
        assert caught.value.problem.code is ErrorCode.GONE
        assert "list" in caught.value.problem.detail


def test_each_type_that_is_published_is_described() -> None:
    """By the calls that publish: their first text that has the form of a type."""
    published = set()
    for path in Path(vmkernel.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.strip("_") not in ("publish", "publish_of_guest", "tell", "announce", "News"):
                continue
            for each in ast.walk(node):
                text = each.value if isinstance(each, ast.Constant) else None
                if isinstance(text, str) and text.partition(".")[0] in (*SUBJECT_KINDS, "audit"):
                    published.add(text)
    published = {text for text in published if "." in text and " " not in text}
    assert len(published) > 40
    assert published <= EVENT_TYPES.keys() | {"host.", "snapshot."}
