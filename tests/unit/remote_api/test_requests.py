"""What every request goes through: route, token, parameters, preconditions, body."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tests.framework.asgi import request
from tests.framework.pages import page_of
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import JSON, MERGE_PATCH, operation, served, vm
from vmkernel import model
from vmkernel.control import requests

SPEC = json.dumps({"spec": {"datastore": "main"}}).encode()


@on_loop
async def test_no_token_is_401_before_anything_else(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        answer = await request(api, "GET", "/v1/vms?nonsense=1", token=None)
        assert (answer.status, answer.problem) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert fake.calls == []


@pytest.mark.parametrize(
    "header",
    ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "mica_root_secret", "Bearer " + "a" * 300],
)
@on_loop
async def test_other_authorization_is_401(tmp_path: Path, header: str) -> None:
    async with served(tmp_path) as (fake, api):
        answer = await request(api, "GET", "/v1/vms", token=None, headers={"authorization": header})
        assert answer.status == 401
        assert "abc" not in answer.json["detail"]
        assert "secret" not in answer.json["detail"]
        assert fake.calls == []


@on_loop
async def test_token_and_origin_go_to_the_vmkernel(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        answer = await request(api, "GET", "/v1/vms/web", token="mica_eye_secret")
        assert answer.status == 200
        assert fake.calls[0].token == "mica_eye_secret"
        assert fake.calls[0].origin == "192.0.2.1"
        assert answer.headers["etag"].startswith('"3-')
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


@on_loop
async def test_wrong_token_wins_over_wrong_request(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", "/v1/vms?nonsense=1", token="mica_no_body")
        assert answer.status == 401
        answer = await request(
            api,
            "PUT",
            "/v1/vms/web",
            token="mica_eye_secret",
            headers=JSON,
            body=b"{",
        )
        assert (answer.status, answer.problem) == (403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v2", 404),
        ("GET", "/v1/vms/", 404),
        ("GET", "/v1/vms/Web", 404),
        ("GET", "/v1/vms/web/none", 404),
        ("GET", "/v1/operations/a.b", 404),
        ("POST", "/v1/vms/web", 405),
        ("TRACE", "/v1", 405),
        ("HEAD", "/v1/events", 405),
    ],
)
@on_loop
async def test_unknown_paths_and_methods(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, method, path)
        assert answer.status == status
        if status == 405:
            assert answer.headers["allow"]


@on_loop
async def test_head_is_get_without_body(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        answer = await request(api, "HEAD", "/v1/vms/web")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("other=1", "other"),
        ("page=%C3%A4", "page"),
    ],
)
@on_loop
async def test_query_parameters_are_strict(tmp_path: Path, query: str, pointer: str) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", f"/v1/vms?{query}")
        assert answer.status == 422
        assert answer.pointers == [pointer]


@pytest.mark.parametrize("query", ["limit", "%FF=1", "=&=", "page=bm9wZQ"])
@on_loop
async def test_unreadable_queries_are_refused(tmp_path: Path, query: str) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", f"/v1/vms?{query}")
        assert answer.status in (400, 422)


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({}, "/spec/datastore"),
        ({"datastore": "main", "cpu": 1}, "/spec/cpu"),
        ({"datastore": "Main"}, "/spec/datastore"),
        ({"datastore": "main\n"}, "/spec/datastore"),
        ({"datastore": "main", "cpus": {"count": 0}}, "/spec/cpus/count"),
        ({"datastore": "main", "cpus": {"count": "1"}}, "/spec/cpus/count"),
        ({"datastore": "main", "memory_bytes": (512 << 20) + 1}, "/spec/memory_bytes"),
        (
            {"datastore": "main", "disks": [{"volume": "a"}, {"volume": "b", "bus": "x"}]},
            "/spec/disks/1/bus",
        ),
        ({"datastore": "main", "disks": [{}]}, "/spec/disks/0/volume"),
        ({"datastore": "main", "labels": {"a": 1}}, "/spec/labels/a"),
    ],
)
@on_loop
async def test_bodies_are_strict(tmp_path: Path, spec: object, pointer: str) -> None:
    async with served(tmp_path) as (fake, api):
        answer = await request(
            api,
            "PUT",
            "/v1/vms/web",
            headers={**JSON, "if-none-match": "*"},
            body=json.dumps({"spec": spec}).encode(),
        )
        assert (answer.status, answer.problem) == (422, "invalid")
        assert answer.pointers == [pointer]
        assert fake.asked(requests.CreateVm) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"spec": {"datastore": "\xed\xa0\x80"}}']
)
@on_loop
async def test_what_is_no_json_is_400(tmp_path: Path, body: bytes) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(
            api, "PUT", "/v1/vms/web", headers={**JSON, "if-none-match": "*"}, body=body
        )
        assert (answer.status, answer.problem) == (400, "malformed")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json", "accept": "text/html"}, 406),
        ({"content-type": "application/json", "accept": "*/*;q=0, text/html"}, 406),
        ({"content-type": "application/json", "accept": "application/*"}, 201),
        ({"content-type": 'Application/JSON; charset="UTF-8"'}, 201),
    ],
)
@on_loop
async def test_media_types(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.CreateVm, vm())
        answer = await request(
            api, "PUT", "/v1/vms/web", headers={"if-none-match": "*", **headers}, body=SPEC
        )
        assert answer.status == status


@pytest.mark.parametrize(
    ("path", "limit"), [("/v1/volumes/disk", 1 << 20), ("/v1/vms/web", 10 << 20)]
)
@on_loop
async def test_bodies_are_bounded(tmp_path: Path, path: str, limit: int) -> None:
    async with served(tmp_path) as (_, api):
        headers = {**JSON, "if-none-match": "*"}
        announced = {**headers, "content-length": str(limit + 1)}
        answer = await request(api, "PUT", path, headers=announced, body=b"{")
        assert (answer.status, answer.problem) == (413, "too-large")
        assert answer.headers["connection"] == "close"
        parts = [b" " * 65536] * (limit // 65536 + 1)
        chunked = {**headers, "transfer-encoding": "chunked"}
        answer = await request(api, "PUT", path, headers=chunked, body=parts)
        assert answer.status == 413


@on_loop
async def test_bodies_where_none_is_taken_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, api):
        answer = await request(api, "GET", "/v1/vms", body=b"x")
        assert (answer.status, answer.problem) == (400, "malformed")


@pytest.mark.parametrize(
    ("headers", "status", "problem"),
    [
        ({}, 428, "precondition-required"),
        ({"if-match": '"3"', "if-none-match": "*"}, 412, "revision-mismatch"),
        ({"if-none-match": '"3"'}, 400, "malformed"),
        ({"if-match": '"three"'}, 412, "revision-mismatch"),
        ({"if-match": 'W/"3"'}, 412, "revision-mismatch"),
        ({"if-match": '"2", "4"'}, 412, "revision-mismatch"),
        ({"if-match": "3"}, 412, "revision-mismatch"),
        ({"if-match": ""}, 412, "revision-mismatch"),
        ({"if-match": '"3" "4"'}, 412, "revision-mismatch"),
        ({"if-match": '*, "3"'}, 412, "revision-mismatch"),
    ],
)
@on_loop
async def test_preconditions(
    tmp_path: Path, headers: dict[str, str], status: int, problem: str
) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm(revision=3))
        answer = await request(api, "PUT", "/v1/vms/web", headers={**JSON, **headers}, body=SPEC)
        assert (answer.status, answer.problem) == (status, problem)
        assert fake.asked(requests.CreateVm) == fake.asked(requests.UpdateVm) == []


@on_loop
async def test_put_creates_or_replaces(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.CreateVm, vm(revision=1))
        fake.answer(requests.UpdateVm, vm(revision=4))
        made = await request(
            api, "PUT", "/v1/vms/web", headers={**JSON, "if-none-match": "*"}, body=SPEC
        )
        assert (made.status, made.headers["location"]) == (201, "/v1/vms/web")
        changed = await request(
            api, "PUT", "/v1/vms/web", headers={**JSON, "if-match": '"3"'}, body=SPEC
        )
        assert changed.status == 200
        assert changed.headers["etag"].startswith('"4-')
        assert fake.asked(requests.UpdateVm)[0].revision == 3


@on_loop
async def test_existing_object_is_412_where_it_had_to_be_new(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        error = model.MicaError(model.ErrorCode.ALREADY_EXISTS, "VM web exists.")
        fake.answer(requests.CreateVm, error)
        fake.answer(requests.CreateToken, error)
        answer = await request(
            api, "PUT", "/v1/vms/web", headers={**JSON, "if-none-match": "*"}, body=SPEC
        )
        assert (answer.status, answer.problem) == (412, "already-exists")
        body = b'{"spec": {"role": "viewer"}}'
        answer = await request(api, "PUT", "/v1/tokens/a", headers=JSON, body=body)
        assert (answer.status, answer.problem) == (409, "already-exists")


@on_loop
async def test_merge_patch(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm(labels={"a": "1", "b": "2"}, memory_bytes=1 << 30))
        fake.answer(requests.UpdateVm, vm(revision=4))
        patch = {"spec": {"labels": {"a": None, "c": "3"}, "memory_bytes": None}}
        answer = await request(
            api, "PATCH", "/v1/vms/web", headers=MERGE_PATCH, body=json.dumps(patch).encode()
        )
        assert answer.status == 200
        spec = fake.asked(requests.UpdateVm)[0].spec
        assert spec.labels == {"b": "2", "c": "3"}
        assert spec.memory_bytes == 512 << 20


@on_loop
async def test_a_patch_is_converted_no_more_than_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec becomes what JSON has, is merged with the patch, and becomes a spec again."""
    steps: list[str] = []

    def counted(name: str) -> None:
        made = getattr(msgspec, name)

        def step(*arguments: object, **named: object) -> object:
            steps.append(name)
            return made(*arguments, **named)

        monkeypatch.setattr(msgspec, name, step)

    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        fake.answer(requests.UpdateVm, vm(revision=4))
        for name in ("convert", "to_builtins"):
            counted(name)
        body = b'{"spec": {"name": "x"}}'
        answer = await request(api, "PATCH", "/v1/vms/web", headers=MERGE_PATCH, body=body)
        assert answer.status == 200
        assert steps.count("to_builtins") == 1
        assert len([step for step in steps if step == "convert"]) <= 2  # the query is the other


@pytest.mark.parametrize(
    ("patch", "status", "pointers"),
    [
        ({"spec": {"datastore": None}}, 422, ["/spec/datastore"]),
        ({"spec": None}, 422, ["/spec"]),
        ({"status": {}}, 422, ["/status"]),
        ({"spec": {"cpus": {"count": 1000}}}, 422, ["/spec/cpus/count"]),
        ([], 422, [""]),
    ],
)
@on_loop
async def test_patches_that_can_not_be(
    tmp_path: Path, patch: object, status: int, pointers: list[str]
) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        answer = await request(
            api, "PATCH", "/v1/vms/web", headers=MERGE_PATCH, body=json.dumps(patch).encode()
        )
        assert (answer.status, answer.pointers) == (status, pointers)


@on_loop
async def test_patch_nested_without_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        for depth, status in ((60, 422), (100_000, 400)):
            body = b'{"spec":' * depth + b"{}" + b"}" * depth
            answer = await request(api, "PATCH", "/v1/vms/web", headers=MERGE_PATCH, body=body)
            assert answer.status == status


@on_loop
async def test_patch_of_a_changed_object(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm(revision=4))
        body = b'{"spec": {"name": "x"}}'
        answer = await request(
            api, "PATCH", "/v1/vms/web", headers={**MERGE_PATCH, "if-match": '"3"'}, body=body
        )
        assert (answer.status, answer.problem) == (412, "revision-mismatch")
        lost = model.MicaError(model.ErrorCode.REVISION_MISMATCH, "VM web was changed.")
        outcomes: list[object] = [lost, lost, vm(revision=6)]
        fake.answer(requests.UpdateVm, lambda _: outcomes.pop(0))
        answer = await request(api, "PATCH", "/v1/vms/web", headers=MERGE_PATCH, body=body)
        assert answer.status == 200
        assert answer.headers["etag"].startswith('"6-')


@on_loop
async def test_pages(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        ids = [f"vm-{number}" for number in range(5)]

        def page(asked: requests.ListVms) -> requests.Page:
            rest = [each for each in ids if asked.after is None or (each,) > asked.after]
            shown = rest[: asked.limit]
            after = (shown[-1],) if len(rest) > asked.limit else None
            return page_of([vm(each) for each in shown], after)

        fake.answer(requests.ListVms, page)
        seen: list[str] = []
        token = None
        while True:
            more = f"&page={token}" if token else ""
            answer = await request(api, "GET", f"/v1/vms?limit=2{more}")
            seen += [item["id"] for item in answer.json["items"]]
            token = answer.json["next"]
            if token is None:
                break
            last = token
        assert seen == ids
        other = await request(api, "GET", f"/v1/volumes?page={last}")
        assert (other.status, other.pointers) == (422, ["page"])
        other = await request(api, "GET", f"/v1/vms?page={last}&limit=1")
        assert other.status == 200, "another size of the same list"
        for more in ("state=running", "sort=-name", "label=a", "fields=id", "view=summary"):
            other = await request(api, "GET", f"/v1/vms?page={last}&{more}")
            assert (other.status, other.pointers) == (422, ["page"]), more
            assert "another query" in other.json["detail"]


@on_loop
async def test_operations_are_202_or_200(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ActOnVm, operation())
        fake.answer(requests.GetOperation, operation(model.OperationState.SUCCEEDED))
        answer = await request(api, "POST", "/v1/vms/web/start")
        assert (answer.status, answer.headers["location"]) == (202, "/v1/operations/op-1")
        answer = await request(api, "POST", "/v1/vms/web/start?wait=5")
        assert (answer.status, answer.json["state"]) == (200, "succeeded")
        assert fake.asked(requests.GetOperation)[0].wait_s == 5
        problem = model.ErrorInfo(code=model.ErrorCode.CONFLICT, detail="No.")
        fake.answer(requests.GetOperation, operation(model.OperationState.FAILED, problem))
        answer = await request(api, "GET", "/v1/operations/op-1")
        assert answer.json["error"]["type"] == "/v1/problems/conflict"


@on_loop
async def test_vmkernel_problems_keep_fields_and_retry(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.CreateVm, model.MicaError.field("/spec/disks/0/volume", "No such."))
        headers = {**JSON, "if-none-match": "*"}
        answer = await request(api, "PUT", "/v1/vms/web", headers=headers, body=SPEC)
        assert (answer.status, answer.pointers) == (422, ["/spec/disks/0/volume"])
        fake.answer(
            requests.Claim,
            model.MicaError(model.ErrorCode.RATE_LIMITED, "Wait.", retry_after_s=7),
        )
        answer = await request(
            api, "POST", "/v1/claim", token=None, headers=JSON, body=b'{"code": "x"}'
        )
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")


@on_loop
async def test_defects_are_500_without_details(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm().spec)
        answer = await request(api, "GET", "/v1/vms/web")
        assert (answer.status, answer.problem) == (500, "internal")
        assert "validation" not in answer.json["detail"].lower()


@on_loop
async def test_no_vmkernel_is_503(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.path.unlink()
        answer = await request(api, "GET", "/v1")
        assert (answer.status, answer.problem) == (503, "unavailable")
        assert answer.headers["retry-after"]


@on_loop
async def test_heads_are_bounded(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        headers = {f"x-{number}": "a" * 1000 for number in range(20)}
        answer = await request(api, "GET", "/v1/vms", headers=headers)
        assert (answer.status, answer.problem) == (431, "head-too-large")
        assert fake.calls == []
