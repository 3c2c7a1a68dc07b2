"""Strict if a standard is strict, lenient if it is lenient; over every route of the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_api.http.routing import AnyRoute, BodyKind, Condition
from remote_api.schema import ObjectBody
from tests.framework.asgi import Answer, request
from tests.framework.fake_vmkernel import FakeVmkernel
from tests.framework.pages import page_of
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import (
    JSON,
    MERGE_PATCH,
    NOW,
    image,
    operation,
    served,
    vm,
    volume,
)
from tests.unit.remote_api.whole_requests import ROUTES, Whole, body_of, whole
from vmkernel import model
from vmkernel.control import requests
from vmkernel.model import Operation, Role

UNAVAILABLE = model.MicaError(model.ErrorCode.UNAVAILABLE, "Not now.", retry_after_s=1)
NOT_FOUND = model.MicaError(model.ErrorCode.NOT_FOUND, "There is no such object.")
WEAKER = {Role.OPERATOR: "mica_eye_secret", Role.ADMIN: "mica_op_secret"}


async def ask(api: Any, asked: Whole, **more: Any) -> Answer:
    """Send a whole request."""
    return await request(
        api, asked.method, asked.target, headers=asked.headers, body=asked.body, **more
    )


def routes(*, having: Callable[[AnyRoute], bool]) -> pytest.MarkDecorator:
    """A parameter for each route that has something."""
    return pytest.mark.parametrize(
        "route", [each for each in ROUTES.values() if having(each)], ids=lambda each: each.name
    )


def variants(route: AnyRoute) -> list[Whole]:
    """A route's request as it should be, and with each part wrong."""
    right = whole(route)
    wrong = [
        right.but(query="nonsense=1"),
        right.but(query="limit=0&page=z"),
        right.but(headers={"accept": "text/html"}),
        right.but(headers={"if-match": "3"}),
        right.but(headers={"if-match": '"3"', "if-none-match": "*"}),
        right.but(body=b"{", headers={"content-type": route.body_kind.value or "text/plain"}),
        right.but(body=b"x", headers={"content-type": "text/plain"}),
        right.but(headers={"tus-resumable": "0.1", "upload-offset": "x", "last-event-id": "\x7f"}),
        right.but(path=right.path.replace("some-id", "NoName")),
    ]
    return [right, *wrong]


@routes(having=lambda route: route.role is not None)
@on_loop
async def test_token_and_right_come_before_all_else(tmp_path: Path, route: AnyRoute) -> None:
    async with served(tmp_path) as (fake, api):
        fake.default = NOT_FOUND
        for asked in variants(route):
            nobody = await ask(api, asked, token=None)
            assert nobody.status == 401, asked
            assert nobody.headers["www-authenticate"].startswith("Bearer")
            stranger = await ask(api, asked, token="mica_no_body", leave_after_answer_s=0.5)
            assert stranger.status == 401, asked
            if (weak := WEAKER.get(route.role or Role.VIEWER)) is not None:
                answer = await ask(api, asked, token=weak)
                assert answer.status == 403, (asked, answer.status)


@pytest.mark.parametrize("path", ["/v1/images/iso-1/data", "/v1/volumes/data/data"])
@on_loop
async def test_head_needs_the_right_of_its_get(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetImage, image())
        fake.default = NOT_FOUND
        assert (await request(api, "HEAD", path, token="mica_eye_secret")).status == 403


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@on_loop
async def test_scheme_in_any_letter_case(tmp_path: Path, scheme: str) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        headers = {"authorization": f"{scheme} mica_eye_secret"}
        assert (await request(api, "GET", "/v1/vms/web", token=None, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("https://mica.example/v1/vms/web", 200),
        ("HTTPS://[2001:db8::1]:8443/v1/vms/web?", 200),
        ("http://mica.example/v1/vms/web", 200),
        ("https://mica.example", 404),
        ("https://mica.example/v1/vms/https://x", 404),
        ("ftp://mica.example/v1/vms/web", 404),
        ("*", 404),
    ],
)
@on_loop
async def test_targets_with_the_whole_url(tmp_path: Path, target: str, status: int) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        scope = {
            "type": "http",
            "method": "GET",
            "path": target.partition("?")[0],
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer mica_eye_secret")],
        }
        seen: list[Any] = []

        async def send(message: Any) -> None:
            seen.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing is to be read")

        await api(scope, receive, send)
        assert seen[0]["status"] == status


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("", True),
        (" , ", True),
        ("*/*", True),
        ("*", True),
        ("application/*", True),
        ("Application/JSON", True),
        ("application/json; charset=utf-8", True),
        ("application/problem+json", True),
        ("application/problem+json, application/xml", True),
        ("text/html, application/json;q=0.001", True),
        ("text/html;q=0.9, */*;q=0.1", True),
        ("application/json;q=nonsense", True),
        ("text/html", False),
        ("text/*", False),
        ("application/json;q=0", False),
        ("application/json;q=0.000, */*", False),
        ("application/json;Q=0", False),
        ("application/*;q=0, */*", False),
        ("application/problem+json;q=0", False),
        ("application/*;q=0, application/json;q=0.5", True),
    ],
)
@on_loop
async def test_accept_by_the_standard(tmp_path: Path, accept: str, accepted: bool) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        answer = await request(api, "GET", "/v1/vms/web", headers={"accept": accept})
        assert answer.status == (200 if accepted else 406)


@routes(having=lambda route: route.role is not None and not route.websocket)
@on_loop
async def test_who_accepts_problems_is_served(tmp_path: Path, route: AnyRoute) -> None:
    """Generated clients name the type of failures alone if a success has no body."""
    async with served(tmp_path) as (fake, api):
        fake.default = UNAVAILABLE
        asked = whole(route).but(headers={"accept": "application/problem+json"})
        assert (await ask(api, asked, leave_after_answer_s=0.1)).status != 406


@routes(having=lambda route: route.body_kind is BodyKind.NONE and route.role is not None)
@on_loop
async def test_empty_json_is_no_body(tmp_path: Path, route: AnyRoute) -> None:
    async with served(tmp_path) as (fake, api):
        fake.default = UNAVAILABLE
        for body in (b"{}", b"null", b" { }\n", b" "):
            for headers in ({}, JSON):
                asked = whole(route).but(body=body, headers=headers)
                assert (await ask(api, asked, leave_after_answer_s=0.1)).status != 400
        for body in (b'{"a": 1}', b"[]", b"0", b"x"):
            assert (await ask(api, whole(route).but(body=body))).status == 400


@routes(
    having=lambda route: (
        any(reply.body is Operation and reply.status == 202 for reply in route.replies)
        and route.body_kind in (BodyKind.NONE, BodyKind.JSON)
    )
)
@pytest.mark.parametrize("code", ["conflict", "insufficient-space", "internal", "timed-out"])
@on_loop
async def test_a_failed_operation_is_a_failed_answer(
    tmp_path: Path, route: AnyRoute, code: str
) -> None:
    async with served(tmp_path) as (fake, api):
        _start_all(fake)
        problem = model.ErrorInfo(code=model.ErrorCode(code), detail="It can't be.")
        fake.answer(requests.GetOperation, operation(model.OperationState.FAILED, problem))
        asked = whole(route)
        query = "&".join(filter(None, (asked.query, "wait=5")))
        answer = await ask(api, asked.but(query=query))
        assert answer.status == {"conflict": 409, "insufficient-space": 409}.get(
            code, 500 if code == "internal" else 504
        )
        assert (answer.problem, answer.json["operation"]) == (code, "op-1")
        assert answer.headers["location"] == "/v1/operations/op-1"
        fake.answer(requests.GetOperation, operation(model.OperationState.CANCELLED))
        answer = await ask(api, asked.but(query=query))
        assert (answer.status, answer.problem) == (409, "cancelled")
        assert (await ask(api, asked)).status == 202
        fake.answer(requests.GetOperation, operation(model.OperationState.SUCCEEDED))
        assert (await ask(api, asked.but(query=query))).status == 200


def _start_all(fake: FakeVmkernel) -> None:
    """Whatever begins an operation, begins this one."""
    for kind in requests.REQUESTS:
        fake.answer(kind, operation())
    fake.answer(requests.WhoAmI, _token())


def _token(token_id: str = "root", role: model.Role = model.Role.ADMIN) -> model.Token:
    return model.Token(id=token_id, created_at=NOW, spec=model.TokenSpec(role=role))


@on_loop
async def test_failed_operation_is_read_as_it_is(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        problem = model.ErrorInfo(code=model.ErrorCode.CONFLICT, detail="No.")
        fake.answer(requests.GetOperation, operation(model.OperationState.FAILED, problem))
        answer = await request(api, "GET", "/v1/operations/op-1?wait=1")
        assert (answer.status, answer.json["state"]) == (200, "failed")


READS: dict[str, tuple[type[requests.Request[Any]], Any]] = {
    "/v1/vms/web": (requests.GetVm, vm()),
    "/v1/volumes/data": (requests.GetVolume, volume()),
    "/v1/images/iso-1": (requests.GetImage, image()),
    "/v1/tokens/a": (requests.GetToken, _token("a")),
    "/v1/whoami": (requests.WhoAmI, _token()),
    "/v1/operations/op-1": (requests.GetOperation, operation()),
    "/v1/vms": (requests.ListVms, page_of([vm()])),
    "/v1/openapi.json": (requests.WhoAmI, _token()),
}


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@on_loop
async def test_what_the_client_has_is_not_sent_again(
    tmp_path: Path, path: str, method: str
) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(*READS[path])
        etag = (await request(api, "GET", path)).headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', f'W/"a",, {etag} ,"b"', "*"):
            answer = await request(api, method, path, headers={"if-none-match": known})
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag), known
        for other in ('"other"', etag.replace("-", "_"), 'W/"x", "y"', "other", '"a', "*, *"):
            answer = await request(api, method, path, headers={"if-none-match": other})
            assert answer.status == 200, other
        for wanted, status in ((etag, 200), ("*", 200), (f"W/{etag}", 412), ('"other"', 412)):
            answer = await request(api, method, path, headers={"if-match": wanted})
            assert answer.status == status, wanted


@on_loop
async def test_a_changed_status_is_sent(tmp_path: Path) -> None:
    """The revision counts the spec's changes alone; who polls for the state must see it."""
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        etag = (await request(api, "GET", "/v1/vms/web")).headers["etag"]
        running = model.VmStatus(
            state=model.VmState.RUNNING, uuid=vm().status.uuid, machine_type="pc-q35-10.0"
        )
        now = model.Vm(id="web", revision=3, created_at=NOW, spec=vm().spec, status=running)
        fake.answer(requests.GetVm, now)
        answer = await request(api, "GET", "/v1/vms/web", headers={"if-none-match": etag})
        assert (answer.status, answer.json["status"]["state"]) == (200, "running")
        # ... and it stands in no change's way.
        fake.answer(requests.DeleteVm, requests.Done())
        answer = await request(api, "DELETE", "/v1/vms/web", headers={"if-match": etag})
        assert answer.status == 204
        assert fake.asked(requests.DeleteVm)[0].revision == 3


CHANGES: dict[str, tuple[str, dict[str, str], bytes]] = {
    "put vm": ("/v1/vms/web", JSON, b'{"spec": {"datastore": "main"}}'),
    "patch vm": ("/v1/vms/web", MERGE_PATCH, b'{"spec": {"name": "x"}}'),
    "delete vm": ("/v1/vms/web", {}, b""),
    "patch volume": ("/v1/volumes/data", MERGE_PATCH, b'{"spec": {"size_bytes": 2147483648}}'),
    "delete volume": ("/v1/volumes/data", {}, b""),
    "delete image": ("/v1/images/iso-1", {}, b""),
    "delete token": ("/v1/tokens/a", {}, b""),
}


@pytest.mark.parametrize("name", CHANGES)
@on_loop
async def test_if_match_by_the_standard(tmp_path: Path, name: str) -> None:
    path, headers, body = CHANGES[name]
    method = name.split()[0].upper()
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.UpdateVm, vm(revision=4))
        for kind in (
            requests.DeleteVm,
            requests.DeleteVolume,
            requests.DeleteImage,
            requests.DeleteToken,
        ):
            fake.answer(kind, requests.Done())
        fake.answer(requests.ResizeVolume, operation())
        fake.answer(*READS[path])
        etag = (await request(api, "GET", path)).headers["etag"]
        for held in (etag, "*", f'"9", {etag}', f'W/"a", {etag}'):
            sent = {**headers, "if-match": held}
            assert (await request(api, method, path, headers=sent, body=body)).status < 300, held
        for failed in ('"9999"', '"other"', f"W/{etag}", '"9", "8"'):
            sent = {**headers, "if-match": failed}
            fake.answer(requests.UpdateVm, _other_revision)
            fake.answer(requests.DeleteVm, _other_revision)
            fake.answer(requests.DeleteVolume, _other_revision)
            answer_ = await request(api, method, path, headers=sent, body=body)
            assert (answer_.status, answer_.problem) == (412, "revision-mismatch"), failed


def _other_revision(asked: Any) -> None:
    assert asked.revision == 9999
    raise model.MicaError(model.ErrorCode.REVISION_MISMATCH, "It is at another revision.")


@on_loop
async def test_if_match_any_holds_for_what_exists_alone(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.default = NOT_FOUND
        body = json.dumps(body_of(ROUTES["putVm"])).encode()
        for held, status in (("*", 412), ('"1", "2"', 404)):
            answer = await request(
                api, "PUT", "/v1/vms/web", headers={**JSON, "if-match": held}, body=body
            )
            assert answer.status == status


@on_loop
async def test_any_version_wins_its_race(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm(revision=3))
        lost = model.MicaError(model.ErrorCode.REVISION_MISMATCH, "VM web was changed.")
        outcomes: list[object] = [lost, lost, vm(revision=6)]
        fake.answer(requests.UpdateVm, lambda _: outcomes.pop(0))
        answer = await request(
            api,
            "PUT",
            "/v1/vms/web",
            headers={**JSON, "if-match": "*"},
            body=json.dumps(body_of(ROUTES["putVm"])).encode(),
        )
        assert answer.status == 200


@routes(
    having=lambda route: (
        isinstance(route.body, type)
        and issubclass(route.body, ObjectBody)
        and route.body_kind is BodyKind.JSON
    )
)
@on_loop
async def test_what_a_get_answered_can_be_sent_back(tmp_path: Path, route: AnyRoute) -> None:
    asked = whole(route)
    name = asked.path.rpartition("/")[2]
    returned = {
        **body_of(route),
        "id": name,
        "revision": 3,
        "created_at": NOW,
        "status": {"state": "whatever", "anything": [1]},
    }
    async with served(tmp_path) as (fake, api):
        _start_all(fake)
        fake.answer(requests.CreateVm, vm())
        fake.answer(requests.CreateToken, model.IssuedToken(token=_token(name), secret="mica_x_y"))
        answer = await ask(api, asked.but(body=json.dumps(returned).encode()))
        assert answer.status < 300, answer.body
        other = json.dumps({**returned, "id": "another"}).encode()
        answer = await ask(api, asked.but(body=other))
        assert (answer.status, answer.pointers) == (422, ["/id"])


@on_loop
async def test_a_patch_of_what_is_observed_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.GetVm, vm())
        body = json.dumps({"status": {"state": "running"}, "id": "web"}).encode()
        answer = await request(api, "PATCH", "/v1/vms/web", headers=MERGE_PATCH, body=body)
        assert (answer.status, sorted(answer.pointers)) == (422, ["/id", "/status"])


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("PUT", f"/v1/images/a?datastore=nope&sha256={'0' * 64}", "datastore"),
        ("GET", "/v1/volumes?datastore=nope", "datastore"),
        ("GET", "/v1/images?datastore=nope", "datastore"),
    ],
)
@on_loop
async def test_parameters_are_named_as_such(
    tmp_path: Path, method: str, path: str, named: str
) -> None:
    async with served(tmp_path) as (fake, api):
        for kind in (requests.UploadImage, requests.ListVolumes, requests.ListImages):
            fake.answer(kind, model.MicaError.field("/spec/datastore", "There is none."))
        headers = {"content-type": "application/octet-stream", "if-none-match": "*"}
        sent = headers if method == "PUT" else {}
        answer = await request(
            api, method, path, headers=sent, body=b"data" if method == "PUT" else b""
        )
        assert (answer.status, answer.pointers) == (422, [named])


@on_loop
async def test_tus_names_its_headers(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(
            requests.CreateUpload, model.MicaError.field("/spec/datastore", "There is none.")
        )
        answer = await ask(api, whole(ROUTES["createUpload"]))
        assert (answer.status, answer.pointers) == (422, ["Upload-Metadata"])


@on_loop
async def test_locations_are_paths(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(
            requests.CreateUpload,
            model.Upload(
                id="up-1",
                created_at=NOW,
                spec=model.UploadSpec(image="iso", datastore="main", size_bytes=4),
                status=model.UploadStatus(
                    state=model.UploadState.RECEIVING, offset_bytes=0, expires_at=NOW
                ),
            ),
        )
        asked = whole(ROUTES["createUpload"]).but(headers={"host": "behind.example"})
        assert (await ask(api, asked)).headers["location"] == "/v1/uploads/up-1"


def test_routes_that_change_a_tagged_object_take_its_tag() -> None:
    tagged = {
        route.path
        for route in ROUTES.values()
        if route.method == "GET" and any(reply.etag for reply in route.replies)
    }
    for route in ROUTES.values():
        if route.path in tagged - {"/v1/whoami"} and route.method in ("DELETE", "PATCH"):
            named = route.name in ("deleteDatastore",)  # it is an operation, without revisions
            assert named or route.condition is Condition.MATCH, route.name
