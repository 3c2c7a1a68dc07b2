"""The wire types, the domain's types and the OpenAPI document hold together."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import remote_api.schema as wire
from remote_api.document.openapi import document, render
from remote_api.resources.table import all_routes
from tests.framework.openapi import DOCUMENT
from tests.style.sources import modules
from vmkernel import model
from vmkernel.control import requests
from vmkernel.model import IssuedToken, Role, Token, TokenSpec

UPGRADE = "python -m remote_api.document.openapi > remote_api/openapi.json"
NOUNS = ("vmkernel.model", "vmkernel.control.requests", "remote_api.schema")
"""The packages that declare what is stored, asked for and sent."""


def test_each_noun_is_declared_once() -> None:
    places: dict[str, list[str]] = {}
    for module in modules():
        if module.name.startswith(NOUNS):
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(module.shown)
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_request_is_known_by_its_module() -> None:
    """Requests are found by their base; their tags and names are told apart."""
    tags = [str(kind.__struct_config__.tag) for kind in requests.REQUESTS]
    assert len(set(tags)) == len(tags) > 70
    for kind in requests.REQUESTS:
        assert kind.__module__.startswith(f"{requests.__name__}.")
        assert kind.REPLY is not None, kind
    declared = {
        node.name
        for module in modules()
        if module.name.startswith(f"{requests.__name__}.")
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and any(each.arg == "tag" for each in node.keywords)
    }
    assert {kind.__name__ for kind in requests.REQUESTS} == declared


def test_the_problems_are_those_of_the_vmkernel_and_those_of_http() -> None:
    assert set(wire.PROBLEM_CODES) == set(model.ErrorCode) | set(wire.HttpCode)
    assert len({code.value for code in wire.PROBLEM_CODES}) == len(wire.PROBLEM_CODES)


def test_problem_codes_have_a_status_and_a_headline() -> None:
    for code in wire.PROBLEM_CODES:
        assert 400 <= wire.status_of(code) <= 599
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
    source = "".join(path.read_text() for path in (DOCUMENT.parent / "resources").rglob("*.py"))
    for kind in requests.REQUESTS:
        if kind not in own:
            assert re.search(rf"\b{kind.__name__}\b[(,)]", source), kind.__name__


def test_secrets_are_not_shown() -> None:
    token = Token(id="a", created_at="2026-01-01T00:00:00Z", spec=TokenSpec(role=Role.ADMIN))
    assert "geheim" not in repr(IssuedToken(token=token, secret="geheim"))
    assert "geheim" not in repr(
        wire.ConsoleTicket(ticket="geheim", websocket="geheim", expires_at="2026-01-01T00:00:00Z")
    )
