"""The wire types, the domain's types and the OpenAPI document hold together."""

from __future__ import annotations

import enum
import json
import re
import typing
from typing import Any

import msgspec
import pytest

import remote_api.schema as wire
from remote_api.routes import all_routes
from remote_api.routes.openapi import document, render
from tests.framework.openapi import DOCUMENT
from vmkernel.control import model, requests

APART = {"ApiInfo", "Operation", "Problem"}
"""Types whose shapes differ on purpose; routes/convert.py says how."""
RENAMED = {"HostStatus": model.HostInfo}
UPGRADE = "python -m remote_api.routes.openapi > remote_api/openapi.json"


def _pairs() -> list[Any]:
    pairs = []
    for name in wire.__all__:
        ours = getattr(wire, name)
        theirs = RENAMED.get(name, getattr(model, name, None))
        if isinstance(ours, type) and isinstance(theirs, type) and name not in APART:
            pairs.append(pytest.param(ours, theirs, id=name))
    return pairs


@pytest.mark.parametrize(("ours", "theirs"), _pairs())
def test_shapes_agree_with_the_domain(ours: type[Any], theirs: type[Any]) -> None:
    if issubclass(ours, enum.Enum):
        assert {each.value for each in ours} == {each.value for each in theirs}
        return
    mine = {field.name: field for field in msgspec.structs.fields(ours)}
    domain = {field.name: field for field in msgspec.structs.fields(theirs)}
    assert mine.keys() == domain.keys()
    for name, field in mine.items():
        assert field.required == domain[name].required, name
        assert _default(field) == _default(domain[name]), name


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default)
    return None if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def test_every_problem_of_the_vmkernel_is_known() -> None:
    assert {code.value for code in model.ErrorCode} <= {code.value for code in wire.ProblemCode}


def test_problem_codes_have_a_status_and_a_headline() -> None:
    for code in wire.ProblemCode:
        assert 400 <= code.status <= 599
        assert code.headline


def test_the_committed_document_is_fresh() -> None:
    assert DOCUMENT.read_text() == render(), f"openapi.json is stale; refresh it: {UPGRADE}"


def test_every_reference_in_the_document_leads_somewhere() -> None:
    whole = document()
    for target in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(whole)):
        node: Any = whole
        for part in target.split("/"):
            node = node[part]


def test_every_schema_field_is_described_or_plain() -> None:
    for name, schema in document()["components"]["schemas"].items():
        assert schema.get("description"), f"{name} has no description"


def test_operation_ids_are_unique() -> None:
    names = [route.name for route in all_routes()]
    assert len(names) == len(set(names))


def test_every_request_of_the_vmkernel_is_reachable() -> None:
    """A request that no route makes is either forgotten, or for the API's own use."""
    own = {requests.GetTlsIdentity}
    source = "".join(path.read_text() for path in (DOCUMENT.parent / "routes").glob("*.py"))
    for kind in typing.get_args(requests.AnyRequest):
        if kind not in own:
            assert re.search(rf"\b{kind.__name__}\(", source), kind.__name__


def test_secrets_are_not_shown() -> None:
    token = wire.Token(
        id="a", created_at="2026-01-01T00:00:00Z", spec=wire.TokenSpec(role=wire.Role.ADMIN)
    )
    assert "geheim" not in repr(wire.IssuedToken(token=token, secret="geheim"))
    assert "geheim" not in repr(
        wire.ConsoleTicket(ticket="geheim", websocket="geheim", expires_at="2026-01-01T00:00:00Z")
    )
