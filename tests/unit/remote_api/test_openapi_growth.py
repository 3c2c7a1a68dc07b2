"""The API only grows: who was written for the last release's document can still use it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_api.document.openapi import document
from tests.framework.openapi_growth import losses

BASELINE: dict[str, Any] = json.loads((Path(__file__).parent / "openapi-baseline.json").read_text())
"""The document of the last release; it is replaced by `openapi.json` when the next is made."""

ALLOWED: dict[str, str] = {}
"""What may be lost nevertheless: each loss as it is reported, and the reason why."""


def test_the_document_takes_nothing_away() -> None:
    found = losses(BASELINE, document())
    assert [each for each in found if each not in ALLOWED] == []
    assert sorted(ALLOWED) == [each for each in found if each in ALLOWED], "allowed, and not lost"


def schema(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A component of a document."""
    return lambda whole: whole["components"]["schemas"][name]


def _operation(path: str, method: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda whole: whole["paths"][path][method]


def _gone(owner: Callable[[dict[str, Any]], dict[str, Any]], *keys: str) -> Any:
    def change(whole: dict[str, Any]) -> None:
        part = owner(whole)
        for key in keys[:-1]:
            part = part[key]
        del part[keys[-1]]

    return change


def _put(owner: Callable[[dict[str, Any]], dict[str, Any]], value: Any, *keys: str) -> Any:
    def change(whole: dict[str, Any]) -> None:
        part = owner(whole)
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


def _added(owner: Callable[[dict[str, Any]], dict[str, Any]], value: Any, *keys: str) -> Any:
    def change(whole: dict[str, Any]) -> None:
        part: Any = owner(whole)
        for key in keys:
            part = part[key]
        part.append(value)

    return change


ROOT = lambda whole: whole  # noqa: E731
VMS, ONE = "/v1/vms", "/v1/vms/{id}"
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("change", "loss"),
    [
        (_gone(ROOT, "paths", VMS), "GET /v1/vms: gone"),
        (_gone(ROOT, "paths", ONE, "patch"), "PATCH /v1/vms/{id}: gone"),
        (_gone(ROOT, "components", "schemas", "Vm"), "#/components/schemas/Vm: gone"),
        (_put(_operation(VMS, "get"), "vms", "operationId"), "GET /v1/vms: another operationId"),
        (_gone(_operation("/v1", "get"), "security"), "GET /v1: needs a token"),
        (_gone(_operation(VMS, "get"), "responses", "200"), "GET /v1/vms 200: gone"),
        (
            _put(_operation(VMS, "get"), {"description": "Other."}, "responses", "206"),
            "GET /v1/vms 206: a success that clients don't know",
        ),
        (
            _gone(_operation(ONE, "get"), "responses", "200", "headers", "ETag"),
            "GET /v1/vms/{id} 200 header ETag: gone",
        ),
        (_put(_operation(VMS, "get"), [], "parameters"), "GET /v1/vms query limit: gone"),
        (
            _added(
                _operation(VMS, "get"),
                {"in": "query", "name": "new", "required": True, "schema": TEXT},
                "parameters",
            ),
            "GET /v1/vms query new: required",
        ),
        (
            _put(schema("VmSpec"), ["datastore", "name"], "required"),
            "#/components/schemas/VmSpec/name: required",
        ),
        (_gone(schema("VmSpec"), "properties", "tpm"), "#/components/schemas/VmSpec/tpm: gone"),
        (
            _put(schema("VmSpec"), 1 << 30, "properties", "memory_bytes", "minimum"),
            "#/components/schemas/VmSpec/memory_bytes: minimum 1073741824, was 16777216",
        ),
        (
            _put(schema("VmSpec"), "integer", "properties", "tpm", "type"),
            "#/components/schemas/VmSpec/tpm: of ['integer'], was of ['boolean']",
        ),
        (
            _put(schema("NicSpec"), {"$ref": "#/components/schemas/NicModel"}, "properties", "key"),
            "#/components/schemas/NicSpec/key: no longer takes null",
        ),
        (
            _put(schema("Firmware"), ["uefi", "bios"], "enum"),
            "#/components/schemas/Firmware: no longer takes 'uefi-secure-boot'",
        ),
        (
            _gone(schema("VmStatus"), "properties", "state"),
            "#/components/schemas/VmStatus/state: gone",
        ),
        (
            _put(schema("VmStatus"), ["state"], "required"),
            "#/components/schemas/VmStatus/uuid: no longer always there",
        ),
        (
            _put(schema("VmStatus"), {"anyOf": [TEXT, {"type": "null"}]}, "properties", "uuid"),
            "#/components/schemas/VmStatus/uuid: may now answer null",
        ),
        (
            _put(schema("VmState"), ["stopped"], "x-extensible-enum"),
            "#/components/schemas/VmState: 'running' is gone",
        ),
        (
            _put(schema("Vm"), {"type": "string"}, "properties", "created_at"),
            "#/components/schemas/Vm/created_at: another format",
        ),
    ],
)
def test_what_is_taken_away_is_found(change: Callable[[dict[str, Any]], None], loss: str) -> None:
    newer = copy.deepcopy(BASELINE)
    change(newer)
    assert loss in losses(BASELINE, newer)


@pytest.mark.parametrize(
    "change",
    [
        _put(ROOT, {"get": {"operationId": "new", "responses": {}}}, "paths", "/v1/new"),
        _put(ROOT, {"type": "object"}, "components", "schemas", "New"),
        _put(schema("VmSpec"), TEXT, "properties", "new"),
        _put(schema("VmStatus"), TEXT, "properties", "new"),
        _added(schema("VmStatus"), "reason", "required"),
        _put(schema("VmSpec"), 1, "properties", "memory_bytes", "minimum"),
        _added(schema("Firmware"), "coreboot", "enum"),
        _added(schema("VmState"), "asleep", "x-extensible-enum"),
        _put(schema("Vm"), "Other words.", "description"),
        _added(
            _operation(VMS, "get"),
            {"in": "query", "name": "new", "required": False, "schema": TEXT},
            "parameters",
        ),
    ],
)
def test_what_is_added_is_no_loss(change: Callable[[dict[str, Any]], None]) -> None:
    newer = copy.deepcopy(BASELINE)
    change(newer)
    assert losses(BASELINE, newer) == []
