"""Small pure parts: merge patches, pointers, page tokens, the registry, service notices."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_api.http.decode import merge_patch
from remote_api.http.paging import next_page, page_start
from remote_api.http.routing import Registry
from remote_api.resources.table import all_routes
from remote_api.schema import ApiError, PageQuery
from vmkernel.service_manager import notify, passed_sockets, watchdog_pause_s

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("target", "patch", "outcome"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_the_rfc_has_it(target: Any, patch: Any, outcome: Any) -> None:
    assert merge_patch(target, patch) == outcome


@given(JSON, JSON)
def test_merge_patch_twice_is_once(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(JSON, JSON)
def test_merge_patch_changes_no_argument(target: Any, patch: Any) -> None:
    before = repr((target, patch))
    merge_patch(target, patch)
    assert repr((target, patch)) == before


PLACES = st.lists(st.text(max_size=64) | st.integers(-(1 << 62), 1 << 62) | st.none(), max_size=4)


@given(PLACES, st.text(min_size=1, max_size=64))
def test_page_tokens_come_back(columns: list[str | int | None], last: str) -> None:
    token = next_page("/v1/vms", "query", (*columns, last))
    assert token is not None
    assert page_start("/v1/vms", "query", PageQuery(page=token)) == (*columns, last)
    for path, query in (("/v1/volumes", "query"), ("/v1/vms", "other")):
        with pytest.raises(ApiError) as refused:
            page_start(path, query, PageQuery(page=token))
        assert [each.pointer for each in refused.value.errors] == ["page"]


@given(st.text(alphabet="abcXYZ019-_", min_size=1, max_size=40))
def test_other_page_tokens_are_refused(token: str) -> None:
    with pytest.raises(ApiError) as refused:
        page_start("/v1/vms", "query", PageQuery(page=token))
    assert refused.value.status == 422


def test_no_page_follows_the_last() -> None:
    assert next_page("/v1/vms", "query", None) is None


def test_every_route_is_found_by_its_own_path() -> None:
    registry = Registry(all_routes())
    for route in registry.routes:
        path = re.sub(r"\{(\w+)\}", r"some-\1", route.path)
        routes, parameters = registry.find(path)
        assert routes[route.method] is route
        assert parameters == {name: f"some-{name}" for name in route.parameters}


@pytest.mark.parametrize("path", ["", "v1", "//v1", "/v1//", "/v1/vms//start", "*"])
def test_other_paths_lead_nowhere(path: str) -> None:
    assert Registry(all_routes()).find(path) == ({}, {})


def test_notices_reach_the_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_watchdog_of_this_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert watchdog_pause_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert watchdog_pause_s() == 20
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_pause_s() is None


def test_sockets_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert passed_sockets() == []
