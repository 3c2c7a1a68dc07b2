"""Every list of a running host: filters, labels, sorting, projection, pages, compression, 304."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from remote_api.http.routing import AnyRoute
from remote_api.resources.table import all_routes
from remote_api.schema import ListParameters
from tests.framework.hosted import HostedMica
from vmkernel.model import DatastoreKind, DatastoreSpec, VmSpec, VolumeSpec

MIB = 1 << 20
GROWING = ("listAudit", "listOperations")
"""Other tests of the same host add to these."""
LISTS = [r for r in all_routes() if issubclass(r.query, ListParameters)]


@pytest.fixture(scope="module")
def mica(host: HostedMica) -> Iterator[Mica]:
    """A client of a host with some objects."""
    with host.client() as made:
        path = str(host.datastore_folder("listed"))
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=path)
        made.wait(made.create_datastore("listed", spec))
        for number, env in enumerate(("prod", "test", "prod")):
            labels = {"env": env, "number": str(number)}
            made.create_vm(
                f"listed-{number}",
                VmSpec(datastore="listed", labels=labels, memory_bytes=(64 - number) * MIB),
            )
        made.wait(made.create_volume("listed", VolumeSpec(datastore="listed", size_bytes=MIB)))
    # Projections leave out what the schema of the whole requires.
    plain = Mica(host.address, token=host.token, fingerprint=host.fingerprint)
    yield plain
    with host.client() as made:
        for number in range(3):
            made.delete_vm(f"listed-{number}")
        made.delete_volume("listed")
        made.wait(made.delete_datastore("listed"))
    plain.close()


def _get(mica: Mica, path: str, **parameters: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mica.transport.send("GET", path, parameters=parameters).body)
    return found


def _path(route: AnyRoute) -> str:
    return re.sub(r"\{id\}", "listed-0", route.path)


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.name)
def test_every_list_answers_every_part_of_the_convention(mica: Mica, route: AnyRoute) -> None:
    path, listing = _path(route), route.query.LISTING
    whole = _get(mica, path, limit=1000)["items"]
    keys = _keys(route, whole)
    for name in listing.sort:
        for sign in ("", "-"):
            found = _get(mica, path, limit=1000, sort=f"{sign}{name}")["items"]
            if route.name not in GROWING:
                assert sorted(_keys(route, found)) == sorted(keys), name
    for name, column in listing.filters.items():
        value = (listing.choices(column) or ("no-such-*",))[0]
        _get(mica, path, **{name: value})
        assert (
            len(_get(mica, path, **{name: ""} if not listing.choices(column) else {})["items"]) >= 0
        )
    summary = _get(mica, path, limit=1000, view="summary")["items"]
    for item in summary:
        assert all(_at(item, key) is not None for key in listing.key)
    if whole and route.name not in GROWING:
        assert _keys(route, summary) == keys
    for item in _get(mica, path, fields=next(iter(listing.filters)))["items"]:
        assert len(json.dumps(item)) < 500
    seen, page = [], None
    while True:
        part = _get(mica, path, limit=1, page=page, sort=next(iter(listing.sort)))
        seen += part["items"]
        page = part["next"]
        if page is None or len(seen) > 20:
            break
    with pytest.raises(RefusedError) as refused:
        _get(mica, path, colour="red", sort="colour")
    assert {each.pointer for each in refused.value.problem.errors} == {"colour", "sort"}


def _keys(route: AnyRoute, items: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(_at(item, key) for key in route.query.LISTING.key) for item in items]


def _at(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = item.get(name)
    return item


def test_vms_by_labels_state_and_order(mica: Mica) -> None:
    def ids(**query: Any) -> list[str]:
        return [vm.id for vm in mica.vms(name="listed-*", **query)]

    assert ids(label="env=prod") == ["listed-0", "listed-2"]
    assert ids(label=["env=prod", "number!=0"]) == ["listed-2"]
    assert ids(label="!env") == []
    assert ids(sort="memory_bytes") == ["listed-2", "listed-1", "listed-0"]
    assert ids(state="running") == []
    assert ids(state=["stopped", "running"], sort="-id")[0] == "listed-2"
    assert [v.id for v in mica.volumes(datastore="listed", attached_to="")] == ["listed"]
    parts = mica.in_part("/v1/vms", fields="name,spec.memory_bytes", name="listed-0")
    assert list(parts) == [{"id": "listed-0", "spec": {"name": "", "memory_bytes": 64 * MIB}}]


def test_a_page_of_another_query_is_refused(mica: Mica) -> None:
    first = _get(mica, "/v1/vms", limit=1, name="listed-*")
    assert _get(mica, "/v1/vms", limit=9, name="listed-*", page=first["next"])["items"]
    with pytest.raises(RefusedError, match="another query"):
        _get(mica, "/v1/vms", limit=1, page=first["next"])


def test_compression_and_not_modified_over_tls(host: HostedMica, mica: Mica) -> None:
    context = ssl._create_unverified_context()
    address = host.address.removeprefix("https://")
    connection = http.client.HTTPSConnection(address, context=context, timeout=30)
    token = {"Authorization": f"Bearer {host.token}"}

    def get(**headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", "/v1/vms?name=listed-*", headers={**token, **given})
        answer = connection.getresponse()
        return answer, answer.read()

    plain, body = get()
    coded, packed = get(Accept_Encoding="gzip")
    assert (plain.getheader("content-encoding"), coded.getheader("content-encoding")) == (
        None,
        "gzip",
    )
    assert gzip.decompress(packed) == body
    assert coded.getheader("vary") == plain.getheader("vary") == "accept-encoding"
    for tag in (plain.getheader("etag"), coded.getheader("etag")):
        assert tag is not None
        same, nothing = get(If_None_Match=tag, Accept_Encoding="gzip")
        assert (same.status, nothing) == (304, b"")
    connection.close()
