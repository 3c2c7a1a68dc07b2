"""Whole texts are compressed for whoever takes that; secrets and streams never."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from remote_api.http.compression import accepts_gzip, coded_tag
from remote_api.http.conditions import Matching, entity_tag, parse_precondition
from remote_api.resources.table import all_routes
from tests.framework.asgi import request
from tests.framework.pages import page_of
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import served, vm
from vmkernel import model
from vmkernel.control import requests

GZIP = {"accept-encoding": "gzip"}
MANY = [vm(f"vm-{number}", labels={"env": "prod"}) for number in range(40)]


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ([], False),
        (["gzip"], True),
        (["GZIP, deflate, br"], True),
        (["deflate", "gzip;q=0.5"], True),
        (["x-gzip"], True),
        (["*"], True),
        (["br;q=1.0, *;q=0.1"], True),
        (["gzip;q=0"], False),
        (["gzip;q=0, *"], False),
        (["*;q=0"], False),
        (["identity"], False),
        (["identity, gzip;q=0.5"], False),
        (["identity;q=0.5, gzip"], True),
        (["br, zstd"], False),
        ([", ,;q=1"], False),
        (["gzip;q=nonsense"], True),
    ],
)
def test_who_takes_gzip(sent: list[str], taken: bool) -> None:
    assert accepts_gzip({b"accept-encoding": [each.encode() for each in sent]}) is taken


@on_loop
async def test_a_list_is_compressed_and_the_same(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ListVms, page_of(MANY))
        plain = await request(api, "GET", "/v1/vms")
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == "accept-encoding"
        coded = await request(api, "GET", "/v1/vms", headers=GZIP)
        assert coded.headers["content-encoding"] == "gzip"
        assert coded.headers["vary"] == "accept-encoding"
        assert gzip.decompress(coded.body) == plain.body
        assert int(coded.headers["content-length"]) == len(coded.body) < len(plain.body) / 4
        head = await request(api, "HEAD", "/v1/vms", headers=GZIP)
        assert (head.body, head.headers["etag"]) == (b"", coded.headers["etag"])
        assert head.headers["content-length"] == coded.headers["content-length"]


@on_loop
async def test_each_form_has_its_tag_and_either_is_known(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ListVms, page_of(MANY))
        plain = (await request(api, "GET", "/v1/vms")).headers["etag"]
        coded = (await request(api, "GET", "/v1/vms", headers=GZIP)).headers["etag"]
        assert plain != coded
        for tag in (plain, coded):
            for headers in ({}, GZIP):
                known = {**headers, "if-none-match": tag}
                answer = await request(api, "GET", "/v1/vms", headers=known)
                assert (answer.status, answer.body) == (304, b"")
                assert answer.headers["vary"] == "accept-encoding"
                assert "content-encoding" not in answer.headers
                same = {**headers, "if-match": tag}
                assert (await request(api, "GET", "/v1/vms", headers=same)).status == 200


def test_a_change_takes_the_tag_of_a_compressed_answer() -> None:
    tag = coded_tag(entity_tag("4", b"{}"))
    assert parse_precondition([tag.encode()], []) == Matching(frozenset({"4"}))


@on_loop
async def test_little_is_sent_as_it_is(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ListVms, page_of([]))
        answer = await request(api, "GET", "/v1/vms", headers=GZIP)
        assert "content-encoding" not in answer.headers
        assert json.loads(answer.body) == {"items": [], "next": None}


@on_loop
async def test_secrets_are_never_compressed(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        secret = model.CloudInitSpec(user_data="#cloud-config\n" + "x" * 4000)
        fake.answer(requests.GetVm, vm(cloud_init=secret))
        answer = await request(api, "GET", "/v1/vms/web", headers=GZIP)
        assert len(answer.body) > 4000
        assert "content-encoding" not in answer.headers
        assert "vary" not in answer.headers


def test_every_answer_that_may_hold_a_secret_says_so() -> None:
    """Of the routes that only read: user data and firmware variables leave by these alone."""
    document = json.loads((Path(__file__).parents[3] / "remote_api/openapi.json").read_text())

    def leads_to(schema: object, names: set[str], seen: set[str]) -> bool:
        for target in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(schema)):
            if target in names:
                return True
            if target not in seen:
                seen.add(target)
                if leads_to(document["components"]["schemas"][target], names, seen):
                    return True
        return False

    secret = {name for name in document["components"]["schemas"] if "CloudInit" in name}
    assert secret
    for route in all_routes():
        if route.method == "GET" and not route.name.startswith("list"):
            answers = document["paths"][route.path]["get"]["responses"].get("200", {})
            assert route.holds_secrets is leads_to(answers, secret, set()), route.name


def test_every_list_conceals_them() -> None:
    assert not [
        route.name for route in all_routes() if route.holds_secrets and "list" in route.name
    ]
