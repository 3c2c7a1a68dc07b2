"""Rules that hold for every schema, parameter and operation of the OpenAPI document.

They are what generators of clients need; the clients themselves are tried in tests/hosted.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from remote_api.document.openapi import document
from remote_api.document.schemas import request_ref
from remote_api.http.routing import AnyRoute, BodyKind
from remote_api.resources.table import all_routes
from tests.style.sources import modules
from vmkernel.model.vm_differences import scope_of

DOCUMENT = document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    operation["operationId"]: operation
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
}
ROUTES = {route.name: route for route in all_routes()}
RECORDS: dict[str, Any] = {
    request_ref(wire)["$ref"].rpartition("/")[2]: wire
    for wire in (
        *(reply.body for route in ROUTES.values() for reply in route.replies if reply.body),
        *(
            found
            for module in modules()
            if module.name.startswith(("vmkernel.model.", "remote_api.schema."))
            for found in vars(importlib.import_module(module.name)).values()
            if isinstance(found, type) and issubclass(found, msgspec.Struct)
        ),
    )
}
"""What the document's components are made of, by their names."""
WITH_BODY = [
    name
    for name, route in ROUTES.items()
    if route.body_kind in (BodyKind.JSON, BodyKind.MERGE_PATCH)
]


def every_schema(node: Any = DOCUMENT, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document that may be a schema, with its place."""
    if isinstance(node, dict):
        yield at, node
        for key, value in node.items():
            if key not in ("examples", "example"):
                yield from every_schema(value, f"{at}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from every_schema(value, f"{at}/{number}")


def reached(node: Any) -> set[str]:
    """The components that a part of the document leads to."""
    names: set[str] = set()
    left = [node]
    while left:
        for _, schema in every_schema(left.pop()):
            name = str(schema.get("$ref", "")).removeprefix("#/components/")
            if name and name not in names:
                names.add(name)
                kind, _, own = name.partition("/")
                left.append(DOCUMENT["components"][kind][own])
    return names


def of_schemas(node: Any) -> dict[str, Any]:
    """The component schemas that a part of the document leads to."""
    names = {name.removeprefix("schemas/") for name in reached(node) if name.startswith("schemas/")}
    return {name: SCHEMAS[name] for name in sorted(names)}


ANSWERED = of_schemas([operation["responses"] for operation in OPERATIONS.values()])
SENT = of_schemas([operation.get("requestBody") for operation in OPERATIONS.values()])


def test_every_number_has_a_format() -> None:
    found = 0
    for at, schema in every_schema():
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        for name, form in (("integer", "int64"), ("number", "double")):
            if name in kinds:
                found += 1
                assert schema.get("format") == form, at
    assert found > 200


def test_every_point_in_time_is_one() -> None:
    """A wire type that has its pattern, and each field that is called so."""
    found = 0
    for name, schema in SCHEMAS.items():
        for member, value in schema.get("properties", {}).items():
            forms = [value, *value.get("anyOf", [])]
            if member.endswith("_at") or member == "time":
                found += 1
                assert any(each.get("format") == "date-time" for each in forms), (name, member)
    assert found > 15
    for at, schema in every_schema():
        assert r"T\d{2}" not in str(schema.get("pattern", "")), at


def test_no_const_and_no_enum_without_a_type() -> None:
    for at, schema in every_schema():
        if "/properties" in at and at.endswith("/properties"):
            continue
        assert "const" not in schema, at
        if isinstance(schema.get("enum"), list):
            assert schema.get("type") == "string", at


def test_no_default_beside_a_reference_or_in_a_body() -> None:
    for at, schema in every_schema():
        if "$ref" in schema:
            assert "default" not in schema, at
        if at.startswith("/components/schemas") and not at.endswith("/properties"):
            assert "default" not in schema, at


def test_answers_are_open() -> None:
    for name, schema in ANSWERED.items():
        for at, inner in every_schema(schema, name):
            assert inner.get("additionalProperties") is not False, at
            assert not isinstance(inner.get("enum"), list), at
            for limit in ("pattern", "maxLength", "minLength", "maximum", "minimum", "maxItems"):
                assert limit not in inner or at.endswith("/properties"), (at, limit)
            if "x-extensible-enum" in inner:
                assert inner["type"] == "string"
                assert "newer host" in inner["description"]


def test_requests_are_closed() -> None:
    for name, schema in SENT.items():
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False, name


def test_answers_promise_what_they_always_have() -> None:
    """msgspec writes every field, so that all are there but those that may be UNSET."""
    for name, schema in ANSWERED.items():
        if schema.get("type") == "object":
            wire = RECORDS[name] if name in RECORDS else RECORDS[name.removesuffix("Answer")]
            always = [
                each.encode_name
                for each in msgspec.structs.fields(wire)
                if each.default is not msgspec.UNSET
            ]
            assert sorted(schema["required"]) == sorted(always), name


def test_requests_need_only_what_has_no_default() -> None:
    bodies = {route.body for route in ROUTES.values() if route.body_kind is BodyKind.JSON}
    for body in bodies:
        needed = [f.encode_name for f in msgspec.structs.fields(body) if f.required]
        schema = SCHEMAS[request_ref(body)["$ref"].rpartition("/")[2]]
        assert sorted(schema.get("required", [])) == sorted(needed)


def test_null_is_allowed_in_a_patch_where_there_is_a_default() -> None:
    found = 0
    for name in SENT:
        if not name.endswith("Patch"):
            continue
        whole = SCHEMAS[name.removesuffix("Patch")]
        assert "required" not in SCHEMAS[name]
        for member, schema in SCHEMAS[name]["properties"].items():
            nullable = {"type": "null"} in schema.get("anyOf", [])
            assert nullable == (member not in whole.get("required", [])), (name, member)
            found += not nullable
    assert found >= 5


def test_bytes_are_binary() -> None:
    found = 0
    for name, operation in OPERATIONS.items():
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [
            answer["content"] for answer in operation["responses"].values() if "content" in answer
        ]
        for media, content in ((m, c) for each in contents for m, c in each.items()):
            if "octet-stream" in media or media.startswith("image/"):
                found += 1
                assert content["schema"]["type"] == "string", name
                assert content["schema"]["format"] == "binary", name
            else:
                assert content["schema"], name
    assert found >= 10


def test_every_component_is_reached() -> None:
    used = reached(DOCUMENT["paths"])
    for kind in ("schemas", "responses"):
        for name in DOCUMENT["components"][kind]:
            assert f"{kind}/{name}" in used, name


def test_everything_is_described() -> None:
    assert DOCUMENT["info"]["contact"]
    for name, operation in OPERATIONS.items():
        assert len(operation["description"]) > 55, name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["in"] == "query", (name, parameter)
    for name, schema in SCHEMAS.items():
        assert schema.get("description"), name
        assert schema.get("title", name) == name


@pytest.mark.parametrize("name", WITH_BODY)
def test_every_body_has_a_right_example(name: str) -> None:
    route = ROUTES[name]
    content = OPERATIONS[name]["requestBody"]["content"][route.body_kind.value]
    schema = {**content["schema"], "components": DOCUMENT["components"]}
    assert len(content["examples"]) == len(route.examples) > 0
    for example in content["examples"].values():
        Draft202012Validator(schema).validate(example["value"])
        if route.body_kind is BodyKind.JSON:
            msgspec.json.decode(json.dumps(example["value"]), type=route.body)


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_conditions_are_documented(route: AnyRoute) -> None:
    operation = OPERATIONS[route.name]
    if "304" in operation["responses"]:
        assert "ETag" in operation["responses"]["200"]["headers"]
        headers = {p["name"] for p in operation["parameters"] if p["in"] == "header"}
        assert "If-None-Match" in headers
    elif route.method == "GET":
        assert route.websocket or route.name in ("streamEvents", "getMetrics")


@pytest.mark.parametrize("form", ["VmSpec", "VmSpecPatch", "VmSpecAnswer"])
def test_every_field_of_a_vm_says_when_a_change_takes_effect(form: str) -> None:
    """From the table by which the host itself goes; what only holds others doesn't say it."""

    def fields(name: str, above: str) -> Iterator[tuple[str, str | None]]:
        for member, schema in SCHEMAS[name]["properties"].items():
            yield f"{above}{member}", schema.get("x-mica-change")
            targets = {s["$ref"] for _, s in every_schema(schema) if "$ref" in s}
            for target in (t.rpartition("/")[2] for t in targets):
                if "properties" in SCHEMAS[target]:
                    items = "[]" if "items" in json.dumps(schema) else ""
                    yield from fields(target, f"{above}{member}{items}.")

    for path, change in fields(form, ""):
        scope = scope_of(path) or scope_of(f"{path}[]")
        assert change == (None if scope is None else scope.change.value), path
    found = dict(fields(form, ""))
    assert found["memory_bytes"] == "live"
    assert found["boot.menu_s"] == "next-start"
    assert found["nics[].mac"] == "powered-off"
    assert found["autostart.enabled"] == "host-only"
    assert found["datastore"] == "creation"
    assert found["cpus"] is None
