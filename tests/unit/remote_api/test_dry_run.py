"""`dry_run=true`: a change is checked, answered as it would be, and not made."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_api.http.decode import take_dry_run
from remote_api.http.routing import AnyRoute
from remote_api.resources.table import all_routes
from remote_api.schema import ApiError
from tests.framework.asgi import request
from tests.framework.running import on_loop
from tests.unit.remote_api.samples import operation, served
from tests.unit.remote_api.test_roles import requests_of
from vmkernel.control import requests
from vmkernel.model import OperationState

NO_CHANGE = {"headImage", "headVolume", "headUpload"}


@pytest.mark.parametrize("route", all_routes(), ids=lambda route: route.name)
def test_a_route_has_a_dry_run_if_its_requests_have(route: AnyRoute) -> None:
    changes = [kind for kind in requests_of(route.handler) if not kind.READ_ONLY]
    possible = bool(changes) and all(kind.DRY_RUN and kind.ROLE is not None for kind in changes)
    assert route.has_dry_run == possible, [kind.__name__ for kind in changes]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", (False, b"")),
        (b"wait=3", (False, b"wait=3")),
        (b"dry_run=true", (True, b"")),
        (b"dry_run=false&wait=3", (False, b"wait=3")),
        (b"wait=3&dry_run=true&limit=1", (True, b"wait=3&limit=1")),
        (b"x=dry_run", (False, b"x=dry_run")),
    ],
)
def test_the_parameter_is_taken_out(query: bytes, expected: tuple[bool, bytes]) -> None:
    assert take_dry_run(query) == expected


@pytest.mark.parametrize(
    "query", [b"dry_run", b"dry_run=", b"dry_run=1", b"dry_run=TRUE", b"dry_run=true&dry_run=true"]
)
def test_anything_else_is_refused(query: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        take_dry_run(query)
    assert [error.pointer for error in caught.value.errors] == ["dry_run"]


@on_loop
async def test_it_goes_to_the_vmkernel_with_changes_alone(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, api):
        fake.answer(requests.ActOnVm, operation(OperationState.PLANNED))
        answer = await request(api, "POST", "/v1/vms/web/start?dry_run=true&wait=9")
        assert (answer.status, answer.json["state"]) == (200, "planned")
        assert [
            call.dry_run for call in fake.calls if isinstance(call.request, requests.ActOnVm)
        ] == [True]
        await request(api, "POST", "/v1/vms/web/start?dry_run=false")
        assert [
            call.dry_run for call in fake.calls if isinstance(call.request, requests.ActOnVm)
        ] == [True, False]
        refused = await request(api, "POST", "/v1/vms/web/nmi?dry_run=true")
        assert (refused.status, refused.pointers) == (422, ["dry_run"])
        refused = await request(api, "GET", "/v1/vms?dry_run=true")
        assert refused.status == 422
