"""One request for each route that nothing is wrong with, for tests over the table of routes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from remote_api.http.routing import AnyRoute, BodyKind, Condition
from remote_api.resources.table import all_routes

__all__ = ["ROUTES", "Whole", "body_of", "whole"]

ROUTES: dict[str, AnyRoute] = {route.name: route for route in all_routes()}
SHA256 = "0" * 64
_QUERIES = {"UploadQuery": f"datastore=main&sha256={SHA256}", "ConsoleQuery": "ticket=x"}
_HEADERS = {
    "createUpload": {
        "upload-length": "4",
        "upload-metadata": "image aXNv,datastore bWFpbg==",
    },
    "sendUploadPart": {"upload-offset": "0"},
    "overrideUploadMethod": {"x-http-method-override": "HEAD"},
    "writeVolume": {"content-range": "bytes 0-3/*"},
}


@dataclass(frozen=True)
class Whole:
    """A request."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def target(self) -> str:
        """The path with the query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def but(self, **changes: Any) -> Whole:
        """The same with other parts; headers are added."""
        headers = {**self.headers, **changes.pop("headers", {})}
        return replace(self, headers=headers, **changes)


def body_of(route: AnyRoute) -> dict[str, Any]:
    """The first that the document shows."""
    return dict(next(iter(route.examples.values())))


def whole(route: AnyRoute) -> Whole:
    """A request that the route takes."""
    headers = dict(_HEADERS.get(route.name, {}))
    if "Tus-Resumable" in route.request_headers:
        headers["tus-resumable"] = "1.0.0"
    if route.condition in (Condition.CREATE, Condition.EITHER):
        headers["if-none-match"] = "*"
    body = b""
    if route.body_kind in (BodyKind.JSON, BodyKind.MERGE_PATCH):
        body = json.dumps(body_of(route)).encode()
    elif route.body_kind is BodyKind.STREAM:
        body = b"data"
    if body:
        headers["content-type"] = route.body_kind.value
    return Whole(
        method=route.method,
        path=re.sub(r"\{(\w+)\}", r"some-\1", route.path),
        query=_QUERIES.get(route.query.__name__, ""),
        headers=headers,
        body=body,
    )
