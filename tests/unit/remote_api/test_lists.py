"""Every list of the API has the one convention: filters, labels, sorting, projection, pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_origin
from urllib.parse import urlencode

import msgspec.inspect as mi
import pytest

from remote_api.http.decode import decode_query
from remote_api.http.routing import AnyRoute
from remote_api.resources.table import all_routes
from remote_api.schema import ListParameters
from tests.framework.asgi import request
from tests.framework.pages import page_of
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import served, vm
from vmkernel.control import requests
from vmkernel.control.requests import REQUESTS, ListRequest
from vmkernel.model import VM_LISTING, ListView
from vmkernel.model.listing import MAX_LABELS

NO_LISTS = {
    "listBackupExtents": "ranges of one disk, which go on by offset",
    "listProblems": "a page of the documentation",
}
"""What is not made of objects, and why."""


def _items(route: AnyRoute) -> Any:
    """The type of a list's items; None if the answer is none."""
    for reply in route.replies:
        if "items" in getattr(get_origin(reply.body) or reply.body, "__struct_fields__", ()):
            for field in mi.type_info(reply.body).fields:  # type: ignore[attr-defined]
                if field.name == "items":
                    return field.type.item_type.cls
    return None


LISTS = [
    route
    for route in all_routes()
    if route.method == "GET"
    and (_items(route) is not None or route.name.startswith("list"))
    and route.name not in NO_LISTS
]


def test_there_is_a_list_for_each_request_of_lists() -> None:
    kinds = [kind for kind in REQUESTS if issubclass(kind, ListRequest)]
    assert len(LISTS) == len(kinds) == len({kind.LISTING for kind in kinds})


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.name)
def test_every_list_has_the_convention(route: AnyRoute) -> None:
    assert issubclass(route.query, ListParameters)
    listing = route.query.LISTING
    assert listing.item is _items(route), "declared for another noun than it answers"
    taken = set(route.query.__struct_fields__)
    assert {"limit", "page", "sort", "fields", "view", *listing.filters} <= taken
    assert ("label" in taken) is bool(listing.labels)
    labelled = "labels" in {each.name for each in mi.type_info(listing.item).fields} or (  # type: ignore[attr-defined]
        "spec" in listing.item.__struct_fields__ and _has_labels(listing.item)
    )
    assert bool(listing.labels) is labelled
    (reply,) = route.replies
    assert reply.body is not None
    body = get_origin(reply.body) or reply.body
    assert {"items", "next"} == set(body.__struct_fields__)


def _has_labels(item: Any) -> bool:
    spec = next(each.type for each in mi.type_info(item).fields if each.name == "spec")  # type: ignore[attr-defined]
    return "labels" in {each.name for each in spec.fields}


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.name)
@on_loop
async def test_every_list_says_what_it_does_not_know(tmp_path: Path, route: AnyRoute) -> None:
    path = re.sub(r"\{(\w+)\}", r"some-\1", route.path)
    async with served(tmp_path) as (fake, api):
        answer = await request(api, "GET", f"{path}?limit=0&colour=red&sort=x&fields=y.z&view=all")
        assert answer.status == 422
        assert sorted(answer.pointers) == ["colour", "fields", "limit", "sort", "view"]
        details = {each["pointer"]: each["detail"] for each in answer.json["errors"]}
        assert "known: " in details["colour"]
        assert "allowed are " in details["sort"]
        assert "full, summary" in details["view"]
        assert not [call for call in fake.calls if isinstance(call.request, ListRequest)]
        for name, column in route.query.LISTING.filters.items():
            if choices := route.query.LISTING.choices(column):
                answer = await request(api, "GET", f"{path}?{name}=nonsense")
                assert (answer.status, answer.pointers) == (422, [name])
                assert ", ".join(choices) in answer.json["detail"]


@on_loop
async def test_what_is_asked_for_goes_to_the_vmkernel(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ListVms, page_of([vm("a"), vm("b")], ("x", "b")))
        target = "/v1/vms?state=running,paused&name=w*&label=a=b&label=!c&sort=-name&view=summary"
        answer = await request(api, "GET", f"{target}&limit=2")
        assert [item["id"] for item in answer.json["items"]] == ["a", "b"]
        (asked,) = fake.asked(requests.ListVms)
        assert asked.limit == 2
        assert asked.query.filters == {"state": "running,paused", "name": "w*"}
        assert (asked.query.label, asked.query.sort) == (("a=b", "!c"), "-name")
        assert asked.query.view is ListView.SUMMARY
        # The parameters may come in another order ...
        same = "/v1/vms?view=summary&label=!c&label=a=b&sort=-name&name=w*&state=running,paused"
        answer = await request(api, "GET", f"{same}&page={answer.json['next']}")
        assert answer.status == 200
        assert fake.asked(requests.ListVms)[1].after == ("x", "b")


@on_loop
async def test_only_labels_are_repeated(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", "/v1/vms?state=running&state=paused")
        assert (answer.status, answer.pointers) == (422, ["state"])
        answer = await request(api, "GET", "/v1/volumes?label=a&label=b")
        assert "label" in answer.pointers
        many = "&".join(f"label=k{n}" for n in range(17))
        answer = await request(api, "GET", f"/v1/vms?{many}")
        assert (answer.status, answer.pointers) == (422, ["label"])


@on_loop
async def test_a_listing_is_one_for_the_request_and_the_route(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ListVms, page_of([]))
        assert (await request(api, "GET", "/v1/vms?label=a")).status == 200
        assert fake.asked(requests.ListVms)[0].LISTING is VM_LISTING


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.name)
def test_all_parameters_of_a_list_can_be_sent_at_once(route: AnyRoute) -> None:
    listing = route.query.LISTING
    given = {name: (listing.choices(each) or ("x",))[0] for name, each in listing.filters.items()}
    given |= {"limit": "1", "page": "x", "sort": next(iter(listing.sort)), "view": "full"}
    labels = [("label", f"k{number}") for number in range(MAX_LABELS)] if listing.labels else []
    query = urlencode([*given.items(), *labels, ("fields", listing.key[0])]).encode()
    assert decode_query(query, route.query).limit == 1
