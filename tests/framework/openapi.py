"""Holds exchanges against the committed OpenAPI document.

Every answer that a test sees must be documented: its status, its media type, its body, the headers
that are promised. So must every request that succeeded.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft202012Validator

from tests.framework.repository import REPOSITORY

__all__ = ["DOCUMENT", "Exchange", "UndocumentedError", "check"]

DOCUMENT = REPOSITORY / "remote_api" / "openapi.json"
_SUCCESS = range(200, 300)


class UndocumentedError(AssertionError):
    """An exchange that the document does not allow."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    query: str
    request_headers: Mapping[str, str]
    status: int
    headers: Mapping[str, str]
    request_body: bytes | None = None
    body: bytes | None = field(default=None, repr=False)
    """None if it was not read to its end."""

    def __str__(self) -> str:
        """For messages."""
        return f"{self.method} {self.path}?{self.query} -> {self.status}"


def check(exchange: Exchange) -> None:
    """Raise UndocumentedError if the document does not allow the exchange."""
    found = _find(exchange.path)
    if found is None:
        _check_unknown(exchange, {404})
        return
    operation = found.get(exchange.method.lower())
    if operation is None and exchange.method == "HEAD":
        operation = found.get("get")
    if operation is None or (exchange.method, exchange.status) == ("HEAD", 405):
        _check_unknown(exchange, {405})
        return
    response = operation["responses"].get(str(exchange.status))
    if response is None:
        raise UndocumentedError(f"{exchange}: the status is not documented; {_body(exchange)}")
    response = _resolve(response)
    _check_answer(exchange, response)
    if exchange.status in _SUCCESS:
        _check_request(exchange, operation)


def _check_unknown(exchange: Exchange, allowed: set[int]) -> None:
    if exchange.status not in allowed:
        raise UndocumentedError(f"{exchange}: expected {allowed} for what is not documented")
    _check_problem(exchange)


def _check_answer(exchange: Exchange, response: dict[str, Any]) -> None:
    for name in response.get("headers", {}):
        if name.lower() not in exchange.headers and name.lower() not in (
            "retry-after",
            "preference-applied",
        ):
            raise UndocumentedError(f"{exchange}: the header {name} is missing")
    content = response.get("content")
    if content is None:
        if exchange.body:
            raise UndocumentedError(f"{exchange}: a body that is not documented")
        return
    media_type = exchange.headers.get("content-type", "").partition(";")[0]
    if media_type not in content:
        raise UndocumentedError(f"{exchange}: the media type {media_type!r} is not documented")
    if exchange.status >= 400:
        _check_problem(exchange)
    if exchange.body is None or exchange.method == "HEAD" or not media_type.endswith("json"):
        return
    _check_body(exchange, content[media_type]["schema"], exchange.body, "answer")


def _check_problem(exchange: Exchange) -> None:
    if exchange.body is None or exchange.method == "HEAD":
        return
    _check_body(exchange, {"$ref": "#/components/schemas/Problem"}, exchange.body, "problem")
    if json.loads(exchange.body)["status"] != exchange.status:
        raise UndocumentedError(f"{exchange}: the problem names another status")


def _check_request(exchange: Exchange, operation: dict[str, Any]) -> None:
    documented = {
        parameter["name"]
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    }
    for name, _ in parse_qsl(exchange.query, keep_blank_values=True):
        if name not in documented:
            raise UndocumentedError(f"{exchange}: took the undocumented parameter {name}")
    content = operation.get("requestBody", {}).get("content", {})
    media_type = exchange.request_headers.get("content-type", "").partition(";")[0]
    empty = (exchange.request_body or b"").strip() in (b"", b"{}", b"{ }", b"null")
    if "requestBody" not in operation and empty:
        return  # some clients always send one; it is let pass
    if exchange.request_body is not None and media_type.endswith("json"):
        if media_type not in content:
            raise UndocumentedError(f"{exchange}: took a body of the type {media_type}")
        _check_body(exchange, content[media_type]["schema"], exchange.request_body, "request")


def _check_body(exchange: Exchange, schema: dict[str, Any], body: bytes, what: str) -> None:
    try:
        # What has read the answer may have undone its coding already.
        value = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    except ValueError as error:
        raise UndocumentedError(f"{exchange}: the {what} is no JSON: {body[:200]!r}") from error
    errors = sorted(_validator(json.dumps(schema)).iter_errors(value), key=str)
    if errors:
        where = "/".join(map(str, errors[0].absolute_path))
        raise UndocumentedError(f"{exchange}: the {what} at /{where}: {errors[0].message}")


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DOCUMENT.read_bytes())
    return document


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": _document()["components"]})


def _resolve(response: dict[str, Any]) -> dict[str, Any]:
    target = response.get("$ref", "").rpartition("/")[2]
    return _document()["components"]["responses"][target] if target else response


def _find(path: str) -> dict[str, Any] | None:
    for template, operations in _paths():
        if template.fullmatch(path):
            return operations
    return None


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths = sorted(_document()["paths"].items(), key=lambda item: item[0].count("{"))
    return [
        (re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))), operations)
        for template, operations in paths
    ]


def _body(exchange: Exchange) -> str:
    return (exchange.body or b"")[:300].decode(errors="replace")
