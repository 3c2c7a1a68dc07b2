"""The OpenAPI 3.1 document, made from the table of routes and the wire types.

Refresh the committed one with `python -m remote_api.document.openapi > remote_api/openapi.json`; a
test fails while it is stale. The host serves the committed file, so that
nothing of this module is loaded there.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any, get_origin

import msgspec

from remote_api.document.schemas import (
    answer_ref,
    parameter_schemas,
    patch_ref,
    request_ref,
    schemas,
)
from remote_api.http.problems import PROBLEM_TYPE
from remote_api.http.routing import AnyRoute, BodyKind, Condition, Reply
from remote_api.resources.table import all_routes, all_tags, tag_of
from remote_api.schema import (
    CAPABILITIES,
    PROBLEM_CODES,
    HttpCode,
    ListParameters,
    NoQuery,
    Problem,
    ProblemCode,
    status_of,
)
from vmkernel.model import ErrorCode, Event, Listing, Operation

__all__ = ["document", "render"]

_ALWAYS = (
    HttpCode.MALFORMED,
    ErrorCode.INVALID,
    HttpCode.NOT_ACCEPTABLE,
    HttpCode.HEAD_TOO_LARGE,
    ErrorCode.INTERNAL,
    ErrorCode.UNAVAILABLE,
    ErrorCode.TIMED_OUT,
)
_EXISTS_STATUS = 412
"""The status of `already-exists` if the client sent `If-None-Match: *`."""
_OPERATION_FAILURES = frozenset(PROBLEM_CODES) - {
    *(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED),
    *(code for code in HttpCode if status_of(code) in (405, 406, 408, 411, 413, 415, 416, 426)),
    *(code for code in PROBLEM_CODES if status_of(code) in (412, 428, 431, 460)),
    HttpCode.MALFORMED,
    ErrorCode.WIPE_NOT_CONFIRMED,
}
"""How an operation may fail, and so the response to a client that waits for it."""
_EVENT_ID = "The last event before this was read: what `after` of the event stream takes."
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "required": False,
    "description": "Check the request and answer as the change would, but change nothing.",
    "schema": {"type": "boolean", "default": False},
}
_BINARY = {"type": "string", "format": "binary"}
_DESCRIPTION = """\
Objects have a `spec` (what is wanted) and a `status` (what is observed). Failures are RFC 9457
problems with stable types. What takes time answers 202 and an operation; `wait` holds the answer
back until it has finished, and an operation that failed within it is a failed answer.

A request may have only what is documented. Answers may grow within this version: read them so that
members you don't know are left out, and that values you don't know of a set (`x-extensible-enum`)
are taken as text.

Answers of some size are compressed for clients that send `Accept-Encoding: gzip`, except those that
may hold secrets and those that are streams.

An ETag belongs to the whole answer, so `If-None-Match` answers 304 only while nothing at all has
changed. `If-Match` of a change is about the spec alone; of an object with a `revision`, it also
takes that number in quotes.

Lists take filters by columns, which are parameters of the same name: `state=running,paused` is any
of these, `*` in a text matches any text, an empty value matches objects without one, and a
backslash before a comma, `*` or another backslash makes it a character. `label` selects by labels,
`sort` orders by columns. `fields` shows some members of each item, and `view=summary` those of a
table: others are left out of the answer then, also those that the schema calls required. A page's
`next` is for the same query only.

What is to go stays for at least a year after its deprecation is announced: `deprecated` here, and
in its answers `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and a `Link` to what replaces it.
`capabilities` of `GET /v1` says what a host can do (`x-mica-capabilities`); none is taken away.

`x-mica-change` of a field of a virtual machine's spec says when a change takes effect: at once in
any state (`host-only`); at once, also while it runs, as far as guest and machine allow (`live`);
from the next start on, though it can be made at any time (`next-start`); it is refused while the
machine runs (`powered-off`); never after the creation (`creation`)."""


def document() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for route in all_routes():
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mica",
            "version": "1.0.0",
            "summary": "The API of a Mica host, and the only way into it.",
            "description": _DESCRIPTION,
            "contact": {"name": "Mica"},
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "x-mica-capabilities": CAPABILITIES,
        "tags": [{"name": name, "description": text} for name, text in all_tags().items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token: `mica_<id>_<secret>`.",
                }
            },
            "responses": _problem_responses(),
            "schemas": schemas(
                _bodies(BodyKind.JSON),
                {Problem, Operation, Event, *_answers()},
                _bodies(BodyKind.MERGE_PATCH),
            ),
        },
    }


def render() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


@cache
def _bodies(kind: BodyKind) -> frozenset[type[Any]]:
    return frozenset(route.body for route in all_routes() if route.body_kind is kind)


def _answers() -> set[type[Any]]:
    return {r.body for route in all_routes() for r in route.replies if _is_model(r.body)}  # type: ignore[misc]


def _is_model(body: Any) -> bool:
    kind = get_origin(body) or body
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _operation(route: AnyRoute) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        **({"deprecated": True} if route.deprecated else {}),
        "summary": route.summary,
        "description": _described(route),
        "tags": [tag_of(route)],
    }
    if route.role is None:
        operation["security"] = []
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body_kind is not BodyKind.NONE:
        operation["requestBody"] = _request_body(route)
    operation["responses"] = _responses(route)
    operation["x-mica-problems"] = sorted(set(_problem_codes(route)))
    return operation


def _described(route: AnyRoute) -> str:
    """What the summary leaves out: the role that it needs, how it answers and which headers it
    uses.
    """
    told = [f"{route.summary[0].upper()}{route.summary[1:]}."]
    if route.details:
        told.append(route.details)
    if route.deprecated:
        told.append(route.deprecated.text)
    if _may_wait(route):
        told.append(
            "The answer is the operation that does it; with `wait`, once it has succeeded, or the"
            " problem by which it failed."
        )
    if route.condition is Condition.CREATE:
        told.append("With `If-None-Match: *`, an object that exists is answered by 412, not 409.")
    elif route.condition is Condition.EITHER:
        told.append("One of `If-None-Match: *` and `If-Match` is needed (428).")
    elif route.condition is Condition.MATCH:
        told.append("With `If-Match`, an object that was changed since is left as it is (412).")
    if route.body_kind is BodyKind.MERGE_PATCH:
        told.append("What the patch leaves out stays, null brings the default back.")
    if issubclass(route.query, ListParameters):
        told.append("`next` is the `page` of the following part, or null at the end.")
        told.append(f"`view=summary` shows {_summary(route.query.LISTING)}.")
    told.append("Needs no token." if route.role is None else f"Needs the role `{route.role}`.")
    return " ".join(told)


def _summary(listing: Listing) -> str:
    return ", ".join(f"`{path}`" for path in (*listing.key, *listing.summary))


def _may_wait(route: AnyRoute) -> bool:
    return any(reply.body is Operation and reply.location for reply in route.replies)


def _parameters(route: AnyRoute) -> list[dict[str, Any]]:
    parameters = [_path_parameter(route, name) for name in route.parameters]
    if route.query is not NoQuery:
        for name, schema, required in parameter_schemas(route.query):
            parameter: dict[str, Any] = {"name": name, "in": "query", "required": required}
            if description := schema.pop("description", None):
                parameter["description"] = description
            parameters.append({**parameter, "schema": schema})
    if route.has_dry_run:
        parameters.append(_DRY_RUN)
    tags = {"type": "string"}
    if route.condition in (Condition.CREATE, Condition.EITHER):
        told = "`*`: the object must be new, or the answer is 412."
        parameters.append(
            _header_parameter("If-None-Match", told, {"type": "string", "enum": ["*"]})
        )
    if _has_etag(route):
        told = "ETags that the client has; the answer is 304 if one is still the object's."
        parameters.append(_header_parameter("If-None-Match", told, tags))
    if route.condition in (Condition.MATCH, Condition.EITHER):
        told = "ETags of which the object must have one, or `*`; else the answer is 412."
        parameters.append(_header_parameter("If-Match", told, tags))
    if "wait" in route.query.__struct_fields__:
        told = "`wait=SECONDS` or `respond-async` (RFC 7240), if there is no parameter `wait`."
        parameters.append(_header_parameter("Prefer", told, {"type": "string"}))
    for name, told in route.request_headers.items():
        schema = {"type": "string", "maxLength": 128, "pattern": "^[ -~]*$"}
        parameters.append(_header_parameter(name, told, schema))
    return parameters


def _header_parameter(name: str, told: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": told, "schema": schema}


def _path_parameter(route: AnyRoute, name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    if "/operations/" not in route.path:
        schema = {
            "type": "string",
            "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            "minLength": 1,
            "maxLength": 63,
            "examples": ["web-1"],
        }
    owner = route.path.partition(f"/{{{name}}}")[0].rpartition("/")[2]
    told = f"The id of one of the {owner}." if owner != "vms" else "The virtual machine's id."
    return {"name": name, "in": "path", "required": True, "description": told, "schema": schema}


def _request_body(route: AnyRoute) -> dict[str, Any]:
    if route.body_kind in (BodyKind.STREAM, BodyKind.TUS):
        content: dict[str, Any] = {"schema": _BINARY}
    else:
        patched = route.body_kind is BodyKind.MERGE_PATCH
        content = {"schema": patch_ref(route.body) if patched else request_ref(route.body)}
        if route.examples:
            content["examples"] = {
                told.replace(" ", "-"): {"summary": told, "value": value}
                for told, value in route.examples.items()
            }
    required = not route.body_optional
    return {"required": required, "content": {route.body_kind.value: content}}


def _has_etag(route: AnyRoute) -> bool:
    """True if the response is a whole object, which has an ETag (see Application)."""
    return (
        route.method in ("GET", "HEAD")
        and not route.websocket
        and (any(r.body not in (None, str) or "ETag" in r.headers for r in route.replies))
    )


def _responses(route: AnyRoute) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for reply in route.replies:
        responses[str(reply.status)] = _reply(
            reply, _has_etag(route), "wait" in route.query.__struct_fields__
        )
        if route.role is not None and _has_etag(route) and reply.status == 200:
            responses["200"]["headers"]["Mica-Event-Id"] = _header(_EVENT_ID)
    if _has_etag(route):
        responses["304"] = {
            "description": "The client has it already.",
            "headers": {**_headers(), "ETag": _header("The ETag that it has.")},
        }
        if route.role is not None:
            responses["304"]["headers"]["Mica-Event-Id"] = _header(_EVENT_ID)
    for status in sorted(_statuses(route)):
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return responses


def _statuses(route: AnyRoute) -> set[int]:
    statuses = {status_of(code) for code in _problem_codes(route)}
    if route.condition in (Condition.CREATE, Condition.EITHER):
        statuses.add(_EXISTS_STATUS)
    return statuses


def _problem_responses() -> dict[str, Any]:
    """One response for each status; an operation names its own problems in x-mica-problems."""
    by_status: dict[int, list[ProblemCode]] = {}
    for code in PROBLEM_CODES:
        by_status.setdefault(status_of(code), []).append(code)
    by_status[_EXISTS_STATUS].append(ErrorCode.ALREADY_EXISTS)
    used = {status for route in all_routes() for status in _statuses(route)}
    return {
        f"Problem{status}": _problem_response(status, codes)
        for status, codes in sorted(by_status.items())
        if status in used
    }


def _problem_codes(route: AnyRoute) -> list[ProblemCode]:
    codes = [*_ALWAYS, *route.problems]
    if route.role is not None:
        codes += [ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED]
    if route.parameters:
        codes.append(ErrorCode.NOT_FOUND)
    # A body where none is taken is read to its end before it is refused.
    codes += [HttpCode.REQUEST_TIMEOUT, HttpCode.TOO_LARGE]
    if route.body_kind is not BodyKind.NONE:
        codes.append(HttpCode.UNSUPPORTED_MEDIA_TYPE)
    if route.condition is Condition.EITHER:
        codes.append(HttpCode.PRECONDITION_REQUIRED)
    if route.condition in (Condition.MATCH, Condition.EITHER) or _has_etag(route):
        codes.append(ErrorCode.REVISION_MISMATCH)
    if _may_wait(route):
        codes += _OPERATION_FAILURES
    return codes


def _reply(reply: Reply, tagged: bool, waits: bool) -> dict[str, Any]:
    response: dict[str, Any] = {"description": reply.description, "headers": _headers()}
    if reply.etag or (tagged and reply.status == 200):
        response["headers"]["ETag"] = _header("Of this answer; what If-Match takes.")
    if waits:
        told = "The preferences that were followed, if there were any."
        response["headers"]["Preference-Applied"] = _header(told)
    if reply.location:
        response["headers"]["Location"] = _header("The path of the object, or of the operation.")
    for name, description in reply.headers.items():
        response["headers"][name] = _header(description)
    if reply.body is not None:
        response["content"] = {
            reply.media_type: {"schema": _answer_schema(reply)},
            **{media: {"schema": {"type": "string"}} for media in reply.also},
        }
    return response


def _answer_schema(reply: Reply) -> dict[str, Any]:
    assert reply.body is not None
    if _is_model(reply.body):
        return answer_ref(reply.body, _bodies(BodyKind.JSON))
    if reply.body is dict:
        return {"type": "object"}
    if reply.media_type == "text/event-stream":
        event = answer_ref(Event, _bodies(BodyKind.JSON))
        return {"type": "string", "contentMediaType": "application/json", "contentSchema": event}
    return dict(_BINARY) if reply.body is bytes else {"type": "string"}


def _problem_response(status: int, codes: list[ProblemCode]) -> dict[str, Any]:
    headers = _headers()
    if status == 401:
        headers["WWW-Authenticate"] = _header("`Bearer`.")
    if status in (429, 503):
        headers["Retry-After"] = {
            "description": "Seconds until it is worth another try.",
            "schema": {"type": "integer", "format": "int64", "minimum": 0},
        }
    return {
        "description": "; ".join(f"`{code}`: {code.headline}" for code in codes) + ".",
        "headers": headers,
        "content": {PROBLEM_TYPE: {"schema": answer_ref(Problem, _bodies(BodyKind.JSON))}},
    }


def _headers() -> dict[str, Any]:
    return {"X-Request-Id": _header("This request, as the host's log names it.")}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


if __name__ == "__main__":
    sys.stdout.write(render())
