"""What clients may rely on: capabilities that hold, and what is to go says so for a year."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from remote_api.document.openapi import document
from remote_api.http.application import Application
from remote_api.http.routing import Deprecated, Registry
from remote_api.resources.table import all_routes
from remote_api.schema import CAPABILITIES
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import served
from vmkernel.control import requests
from vmkernel.model import ApiInfo

WHOLE = document()
MIN_NOTICE = timedelta(days=365)


def _parameters(name: str) -> set[str]:
    (found,) = (
        operation
        for methods in WHOLE["paths"].values()
        for operation in methods.values()
        if operation["operationId"] == name
    )
    return {each["name"] for each in found.get("parameters", ())}


def _fields(name: str) -> set[str]:
    schemas = WHOLE["components"]["schemas"]
    found = schemas.get(name) or schemas[f"{name}Answer"]
    return set(found["properties"])


EVIDENCE: dict[str, Callable[[], Any]] = {
    "dry-run": lambda: "dry_run" in _parameters("putVm"),
    "event-filters": lambda: {"type", "subject", "label"} <= _parameters("streamEvents"),
    "event-objects": lambda: "object" in _fields("Event"),
    "event-tickets": lambda: "/v1/events/ticket" in WHOLE["paths"],
    "field-error-codes": lambda: {"code", "parameters"} <= _fields("FieldError"),
    "idempotent-actions": lambda: "unchanged" in _fields("Operation"),
    "list-fields": lambda: {"fields", "view"} <= _parameters("listVolumes"),
    "list-filters": lambda: {"state", "sort"} <= _parameters("listVms"),
    "list-labels": lambda: "label" in _parameters("listVms"),
    "list-watch": lambda: "after" in _parameters("streamEvents"),
    "prefer": lambda: "Prefer" in _parameters("startVm"),
    "problem-pages": lambda: "/v1/problems/{id}" in WHOLE["paths"],
}
"""Where the document shows that a capability is there."""


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_capability_is_there(name: str) -> None:
    assert EVIDENCE[name]()
    assert WHOLE["x-mica-capabilities"][name] == CAPABILITIES[name]


@on_loop
async def test_a_host_names_its_capabilities_to_those_with_a_token(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        info = ApiInfo(product="Mica", api_version="v1", claimed=True, capabilities=("vm.create",))
        fake.answer(requests.GetApiInfo, info)
        answer = await request(api, "GET", "/v1")
        assert answer.json["capabilities"] == [*sorted(CAPABILITIES), "vm.create"]
        stranger = await request(api, "GET", "/v1", token=None)
        assert "capabilities" not in stranger.json


def test_nothing_goes_without_a_years_notice() -> None:
    for route in all_routes():
        if route.deprecated is not None:
            assert route.deprecated.sunset - route.deprecated.since >= MIN_NOTICE, route.name


@on_loop
async def test_what_is_to_go_says_so_in_every_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        (route,) = (each for each in all_routes() if each.name == "listProblems")
        notice = Deprecated(since=date(2027, 1, 1), sunset=date(2028, 1, 1), successor="/v2/p")
        old = Application(Registry([replace(route, deprecated=notice)]), api.state)
        for query, status in (("", 200), ("?nonsense=1", 422)):
            answer = await request(old, "GET", f"/v1/problems{query}", token=None)
            assert answer.status == status
            assert answer.headers["deprecation"] == "@1798761600"
            assert answer.headers["sunset"] == "Sat, 01 Jan 2028 00:00:00 GMT"
            assert answer.headers["link"] == '</v2/p>; rel="successor-version"'
