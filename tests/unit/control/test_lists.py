"""The query language of lists: what is selected, in which order, how it is cut and shown."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.framework.pages import items_of
from tests.unit.control.test_server import World, _run
from tests.unit.remote_api.samples import volume
from vmkernel.control import requests
from vmkernel.control.lists import EncodedItems, answer_from, wrong_with
from vmkernel.control.requests import REQUESTS, ListRequest
from vmkernel.model import (
    AUDIT_LISTING,
    VM_LISTING,
    VOLUME_LISTING,
    CdromSpec,
    DiskSpec,
    Listing,
    ListQuery,
    ListView,
    MicaError,
    Role,
    Token,
    Vm,
    VmSpec,
    VmState,
    VmStatus,
    Volume,
)
from vmkernel.model.listing import PARAMETERS, leaf

LISTINGS = {kind.__name__: kind.LISTING for kind in REQUESTS if issubclass(kind, ListRequest)}


def _vm(vm_id: str, state: VmState = VmState.STOPPED, **spec: Any) -> Vm:
    return Vm(
        id=vm_id,
        revision=1,
        created_at="2026-01-01T00:00:00Z",
        spec=VmSpec(**({"datastore": "main"} | spec)),
        status=VmStatus(state=state, uuid="", machine_type=""),
    )


VMS = (
    _vm("a", VmState.RUNNING, name="web one", labels={"env": "prod", "tier": "1"}),
    _vm("b", VmState.PAUSED, labels={"env": "test"}, disks=(DiskSpec(volume="data"),)),
    _vm("c", VmState.RUNNING, name="db, main*", labels={"tier": "2", "a.b/c": "x=y"}),
    _vm("d", datastore="other", cdroms=(CdromSpec(image="iso"), CdromSpec()), memory_bytes=1 << 30),
    _vm("e", name="back\\slash", template=True),
)


def _ids(items: Sequence[Vm] = VMS, /, **query: Any) -> str:
    request = requests.ListVms(limit=1000, query=ListQuery(**query))
    return "".join(vm.id for vm in items_of(asyncio.run(answer_from(request, items)), Vm))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcde"),
        ({"state": "running"}, "ac"),
        ({"state": "running,paused"}, "abc"),
        ({"state": "running", "name": "web*"}, "a"),
        ({"name": "*a*"}, "ce"),
        ({"name": "b"}, "b"),
        ({"name": "db\\, main\\*"}, "c"),
        ({"name": "db\\, *"}, "c"),
        ({"name": "back\\\\slash"}, "e"),
        ({"name": "w*b*e,d"}, "ad"),
        ({"id": "a,b,z"}, "ab"),
        ({"id": "*"}, "abcde"),
        ({"id": "A"}, ""),
        ({"datastore": "other"}, "d"),
        ({"template": "true"}, "e"),
        ({"template": "false,true"}, "abcde"),
        ({"volume": "data"}, "b"),
        ({"volume": ""}, "acde"),
        ({"image": "iso"}, "d"),
        ({"image": ",iso"}, "abcde"),
        ({"accelerator": ""}, "abcde"),
    ],
)
def test_filters(filters: dict[str, str], found: str) -> None:
    assert _ids(filters=filters) == found


@pytest.mark.parametrize(
    ("label", "found"),
    [
        (("env=prod",), "a"),
        (("env!=prod",), "bcde"),
        (("env",), "ab"),
        (("!env",), "cde"),
        (("env", "env!=prod"), "b"),
        (("env=prod", "tier=1"), "a"),
        (("env=prod", "env=test"), ""),
        (("a.b/c=x=y",), "c"),
        (("env=",), ""),
    ],
)
def test_labels(label: tuple[str, ...], found: str) -> None:
    assert _ids(label=label) == found


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("id", "abcde"),
        ("-id", "edcba"),
        ("state", "bacde"),
        ("state,-id", "bcaed"),
        ("-state,id", "deacb"),
        ("memory_bytes,-id", "ecbad"),
        ("name", "bedca"),
        ("started_at", "abcde"),
        ("-started_at,-name", "acdeb"),
    ],
)
def test_sorting(sort: str, found: str) -> None:
    assert _ids(sort=sort) == found


def _shown(**query: Any) -> list[dict[str, Any]]:
    request = requests.ListVms(query=ListQuery(**query))
    found: list[dict[str, Any]] = json.loads(b"[%b]" % asyncio.run(answer_from(request, VMS)).items)
    return found


def test_projection_keeps_the_shape_and_the_id() -> None:
    assert _shown(fields="status.state")[0] == {"id": "a", "status": {"state": "running"}}
    assert _shown(fields="state,name")[1] == {
        "id": "b",
        "status": {"state": "paused"},
        "spec": {"name": ""},
    }
    assert _shown(fields="spec.labels.env")[0]["spec"] == {"labels": {"env": "prod"}}
    assert _shown(fields="spec.labels.env")[2]["spec"] == {"labels": {}}
    assert _shown(fields="spec.disks.volume")[1]["spec"] == {"disks": [{"volume": "data"}]}
    assert _shown(fields="spec.watchdog.model")[0]["spec"] == {"watchdog": None}
    whole = _shown(fields="spec.labels.env,spec")[0]["spec"]
    assert whole == _shown()[0]["spec"]


@pytest.mark.parametrize("name", LISTINGS)
def test_a_summary_is_a_part_of_the_whole(name: str) -> None:
    listing = LISTINGS[name]
    for path in (*listing.key, *listing.summary):
        leaf(listing.item, path)
    if listing is VM_LISTING:
        summary = _shown(view=ListView.SUMMARY)[0]
        assert set(summary) == {"id", "revision", "created_at", "spec", "status"}
        assert summary["status"] == {"state": "running", "reason": None, "started_at": None}


@pytest.mark.parametrize("name", LISTINGS)
def test_every_column_leads_to_a_plain_value(name: str) -> None:
    listing = LISTINGS[name]
    assert not PARAMETERS & {*listing.filters, *listing.sort}
    for column in (*listing.filters.values(), *listing.sort.values()):
        for path in filter(None, (column.path, column.otherwise)):
            assert leaf(listing.item, path) is not None
            assert not any(word in path for word in ("cloud_init", "secret", "password"))
    if listing.labels:
        leaf(listing.item, listing.labels)


def _wrong(listing: Listing = VM_LISTING, **query: Any) -> list[tuple[str, str]]:
    return [(each.pointer, each.detail) for each in wrong_with(listing, ListQuery(**query))]


@pytest.mark.parametrize(
    ("query", "pointer", "said"),
    [
        ({"filters": {"colour": "red"}}, "colour", "allowed are accelerator"),
        ({"filters": {"state": "on"}}, "state", "'on' is none of stopped, starting"),
        ({"filters": {"state": "run*"}}, "state", "'run*' is none of"),
        ({"filters": {"name": "a\x1b[2J"}}, "name", "Control"),
        ({"label": ("a=\n",)}, "label", "Control"),
        ({"filters": {"template": "1"}}, "template", "none of true, false"),
        ({"filters": {"name": "a\\b"}}, "name", "Write a backslash only"),
        ({"filters": {"name": "a\\"}}, "name", "Write a backslash only"),
        ({"filters": {"name": "*" * 9}}, "name", "At most 8 `*`"),
        ({"filters": {"name": "," * 32}}, "name", "At most 32 values"),
        ({"filters": {"name": "x" * 1025}}, "name", "At most 1024 characters"),
        ({"label": ("=x",)}, "label", "`KEY=VALUE`"),
        ({"label": ("!",)}, "label", "`KEY=VALUE`"),
        ({"label": ("a b=c",)}, "label", "`KEY=VALUE`"),
        ({"label": ("!env=prod",)}, "label", "`KEY=VALUE`"),
        ({"label": ("a=" + "x" * 400,)}, "label", "At most 321"),
        ({"label": tuple("abcdefghijklmnopq")}, "label", "At most 16"),
        ({"sort": "colour"}, "sort", "'colour' is unknown; allowed are cpus, created_at"),
        ({"sort": "name,-name"}, "sort", "more than once"),
        ({"sort": "id,name,state,cpus,datastore"}, "sort", "At most 4"),
        ({"sort": "--id"}, "sort", "unknown"),
        ({"fields": "nme"}, "fields", "Did you mean `name`?"),
        ({"fields": "spec.cpu"}, "fields", "Did you mean `spec.cpus`?"),
        ({"fields": "id.x"}, "fields", "`id` has no fields"),
        ({"fields": "id,"}, "fields", "'' is unknown"),
        ({"fields": "id," * 64 + "id"}, "fields", "At most 64"),
        ({"fields": "id", "view": ListView.SUMMARY}, "view", "not both"),
    ],
)
def test_what_is_wrong_is_named(query: dict[str, Any], pointer: str, said: str) -> None:
    ((found, detail),) = _wrong(**query)
    assert found == pointer
    assert said in detail


def test_all_that_is_wrong_is_named_at_once() -> None:
    found = _wrong(filters={"a": "", "state": "x"}, label=("=", "!"), sort="x,y", fields="x,spec.y")
    names = [pointer for pointer, _ in found]
    assert names == ["a", "state", "label", "label", "sort", "sort", "fields", "fields"]


def test_labels_of_what_has_none_are_refused() -> None:
    assert _wrong(VOLUME_LISTING, label=("env",)) == [("label", "These objects have no labels.")]


# --- pages ----------------------------------------------------------------------------------

STATES = st.sampled_from([VmState.RUNNING, VmState.STOPPED, VmState.PAUSED])
SAMPLE = st.builds(
    lambda ids, states, names, sizes: tuple(
        _vm(one, state, name=name, memory_bytes=size << 20)
        for one, state, name, size in zip(sorted(ids), states, names, sizes, strict=False)
    ),
    st.sets(st.text("abcxyz", min_size=1, max_size=6), max_size=12),
    st.lists(STATES, min_size=12, max_size=12),
    st.lists(st.sampled_from(["", "x", "\xfc", "y z", "a,b"]), min_size=12, max_size=12),
    st.lists(st.integers(16, 18), min_size=12, max_size=12),
)
SORTS = st.lists(
    st.tuples(st.sampled_from(["", "-"]), st.sampled_from(sorted(VM_LISTING.sort))),
    max_size=4,
    unique_by=lambda each: each[1],
).map(lambda columns: ",".join(sign + name for sign, name in columns))
QUERIES = st.builds(
    ListQuery,
    filters=st.sampled_from([{}, {"state": "running,paused"}, {"name": "*x*,"}]),
    sort=SORTS,
)


async def _all(kind: type[ListRequest], query: ListQuery, items: Sequence[Any], limit: int) -> Any:
    after, found = None, b""
    while True:
        page = await answer_from(kind(limit=limit, after=after, query=query), items)
        found += (b"," if found and page.items else b"") + page.items
        after = page.next
        if after is None:
            return [item["id"] for item in json.loads(b"[%b]" % found)]


@given(SAMPLE, QUERIES, st.integers(1, 5))
def test_pages_of_any_size_make_the_same_list(
    items: tuple[Vm, ...], query: ListQuery, limit: int
) -> None:
    whole = asyncio.run(_all(requests.ListVms, query, items, 1000))
    assert asyncio.run(_all(requests.ListVms, query, items, limit)) == whole
    mixed = random.Random(1).sample(items, len(items))
    if query.sort:
        assert asyncio.run(_all(requests.ListVms, query, mixed, limit)) == whole


@given(SAMPLE, SORTS, st.integers(1, 4), st.data())
def test_what_goes_or_comes_meanwhile_changes_no_place_of_the_others(
    items: tuple[Vm, ...], sort: str, limit: int, data: st.DataObject
) -> None:
    async def scenario() -> None:
        query = ListQuery(sort=sort)
        first = await answer_from(requests.ListVms(limit=limit, query=query), items)
        seen = [vm.id for vm in items_of(first, Vm)]
        gone = data.draw(st.sets(st.sampled_from([vm.id for vm in items]))) if items else set()
        left = tuple(vm for vm in items if vm.id not in gone)
        if first.next is None:
            return
        request = requests.ListVms(limit=1000, after=first.next, query=query)
        rest = [vm.id for vm in items_of(await answer_from(request, left), Vm)]
        assert not set(seen) & set(rest)
        assert set(rest) == {vm.id for vm in left} - set(seen)

    asyncio.run(scenario())


@given(SAMPLE, SORTS)
def test_sorting_is_what_it_says(items: tuple[Vm, ...], sort: str) -> None:
    request = requests.ListVms(limit=1000, query=ListQuery(sort=sort))
    found = items_of(asyncio.run(answer_from(request, items)), Vm)
    ordered = sorted(items, key=lambda vm: vm.id)
    for column in reversed(sort.split(",") if sort else []):
        read: dict[str, Callable[[Vm], Any]] = {
            "id": lambda vm: vm.id,
            "name": lambda vm: vm.spec.name or vm.id,
            "state": lambda vm: vm.status.state.value,
            "datastore": lambda vm: vm.spec.datastore,
            "created_at": lambda vm: vm.created_at,
            "started_at": lambda vm: vm.status.started_at or "",
            "cpus": lambda vm: vm.spec.cpus.count,
            "memory_bytes": lambda vm: vm.spec.memory_bytes,
        }
        ordered.sort(key=read[column.removeprefix("-")], reverse=column.startswith("-"))
    assert [vm.id for vm in found] == [vm.id for vm in ordered]


TEXTS = st.text("ab*\\,", max_size=6)


@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS)
def test_a_value_with_backslashes_is_that_value(values: list[str], other: str) -> None:
    def escaped(text: str) -> str:
        return "".join(f"\\{each}" if each in "\\,*" else each for each in text)

    items = tuple(
        _vm(f"v{n}", name=name) for n, name in enumerate(dict.fromkeys([*values, other])) if name
    )
    query = ListQuery(filters={"name": ",".join(map(escaped, filter(None, values))) or "none"})
    request = requests.ListVms(query=query)
    found = items_of(asyncio.run(answer_from(request, items)), Vm)
    assert {vm.spec.name for vm in found} == {each for each in values if each}


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_text_breaks_the_reader(name: str, label: str, sort: str, fields: str) -> None:
    query = ListQuery(filters={"name": name}, label=(label,), sort=sort, fields=fields)
    request = requests.ListVms(query=query)
    if wrong_with(VM_LISTING, query):
        with pytest.raises(MicaError):
            asyncio.run(answer_from(request, VMS))
    else:
        asyncio.run(answer_from(request, VMS))


@pytest.mark.parametrize("after", [(), ("a", "b"), (1,), (None,)])
def test_a_place_of_another_query_is_refused(after: tuple[Any, ...]) -> None:
    with pytest.raises(MicaError, match="does not belong"):
        asyncio.run(answer_from(requests.ListVms(after=after), VMS))


def test_pages_follow_each_other(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(5):
            await world.token(f"t{number}", Role.VIEWER)
        seen: list[str] = []
        after: tuple[requests.SortValue, ...] | None = None
        while True:
            page = await world.client.call(
                requests.ListTokens(limit=2, after=after), token=world.admin
            )
            seen += [token.id for token in items_of(page, Token)]
            after = page.next
            if after is None:
                break
        assert seen == ["admin", "t0", "t1", "t2", "t3", "t4"]

    _run(tmp_path, scenario)


def test_the_audit_trail_goes_back_in_time() -> None:
    assert AUDIT_LISTING.newest_first


def test_columns_of_a_volume() -> None:
    free = volume()
    request = requests.ListVolumes(query=ListQuery(filters={"attached_to": ""}))
    assert items_of(asyncio.run(answer_from(request, (free,))), Volume) == (free,)
    request = requests.ListVolumes(query=ListQuery(filters={"attached_to": "web"}))
    assert items_of(asyncio.run(answer_from(request, (free,))), Volume) == ()


# --- what is kept -----------------------------------------------------------------------------


def test_an_item_is_encoded_once_and_again_when_it_is_another() -> None:
    kept = EncodedItems()
    made: list[str] = []

    def shown(vm: Vm) -> Vm:
        made.append(vm.id)
        return vm

    first = kept.of("a", VMS[0], shown)
    assert kept.of("a", VMS[0], shown) is first
    assert made == ["a"]
    same = _vm("a", VmState.RUNNING, name="web one", labels={"env": "prod", "tier": "1"})
    assert kept.of("a", same, shown) is first
    assert made == ["a"]
    assert kept.of("a", _vm("a"), shown) != first
    assert made == ["a", "a"]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 4000))
def test_what_is_kept_is_bounded(keys: list[int], max_bytes: int) -> None:
    kept = EncodedItems(max_bytes=max_bytes)
    for key in keys:
        item = _vm(f"v{key}")
        assert kept.of(str(key), item, lambda vm: vm) is not None
        assert kept.kept_bytes <= max_bytes
