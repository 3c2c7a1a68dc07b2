"""The OpenAPI 3.1 document, made from the table of routes and the wire types.

Refresh the committed one with `python -m remote_api.routes.openapi > remote_api/openapi.json`; a
test fails while it is stale. The host serves the committed file, so that
nothing of this module is loaded there.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import msgspec

from remote_api.routes.registry import AnyRoute, BodyKind, Condition, Reply
from remote_api.routes.table import all_routes
from remote_api.schema import NoQuery, Operation, Problem, ProblemCode, Slug

__all__ = ["document", "render"]

_TAGS = {
    "host": "The machine that Mica runs on.",
    "access": "Claiming the host, and tokens.",
    "datastores": "Places for virtual machines, volumes and images.",
    "images": "ISO images, disk templates, kernels and initrds.",
    "uploads": "Resumable uploads of images, by tus 1.0 (https://tus.io).",
    "volumes": "Virtual disks.",
    "vms": "Virtual machines.",
    "operations": "Work that outlasts its request.",
    "events": "What happened.",
}
_ALWAYS = (
    ProblemCode.MALFORMED,
    ProblemCode.INVALID,
    ProblemCode.NOT_ACCEPTABLE,
    ProblemCode.HEAD_TOO_LARGE,
    ProblemCode.INTERNAL,
    ProblemCode.UNAVAILABLE,
    ProblemCode.TIMED_OUT,
)
_EXISTS_STATUS = 412
"""Of `already-exists` where the client said `If-None-Match: *`."""
_REF = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The whole document."""
    routes = all_routes()
    schemas = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mica",
            "version": "1.0.0",
            "summary": "The API of a Mica host, and the only way into it.",
            "description": (
                "Objects have a `spec` (what is wanted) and a `status` (what is observed)."
                " Failures are RFC 9457 problems with stable types. What takes time answers 202"
                " and an operation; `wait` holds the answer back until it has finished."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
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
            "schemas": dict(sorted(schemas.items())),
        },
    }


def render() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _schemas(routes: tuple[AnyRoute, ...]) -> dict[str, Any]:
    types: set[Any] = {Problem, Operation}
    patched: set[Any] = set()
    for route in routes:
        types.update(r.body for r in route.replies if _is_model(r.body))
        if route.body_kind is BodyKind.JSON:
            types.add(route.body)
        if route.body_kind is BodyKind.MERGE_PATCH:
            types.add(route.body)
            patched.add(route.body)
    ordered = sorted(types, key=lambda t: str(t.__name__))
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    _, streamed = msgspec.json.schema_components(_streamed_types(), ref_template=_REF)
    schemas: dict[str, Any] = _clean({**components, **streamed})
    for wire in sorted(patched, key=lambda t: str(t.__name__)):
        _add_patch(wire.__name__, schemas)
    return schemas


def _streamed_types() -> list[Any]:
    """What no JSON body holds: it comes by server-sent events and WebSockets."""
    from remote_api.schema import ConsoleAsk, ConsoleNotice, Event

    return [ConsoleAsk, ConsoleNotice, Event]


def _clean_value(key: str, value: Any) -> Any:
    if isinstance(value, str) and key == "pattern":
        return value.removesuffix(r"(?!\n)")
    if isinstance(value, str) and key == "description":
        return " ".join(value.split())
    return _clean(value)


def _is_model(body: Any) -> bool:
    return isinstance(body, type) and issubclass(body, msgspec.Struct)


def _clean(schema: Any) -> Any:
    """Patterns as ECMA 262 reads them (see Slug), docstrings as text.

    What is at the beginning of a docstring's lines differs between versions of Python.
    """
    if isinstance(schema, dict):
        return {key: _clean_value(key, value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    return schema


def _add_patch(name: str, schemas: dict[str, Any]) -> str:
    """The merge-patch form of an object: every member optional, null to remove it."""
    patch_name = f"{name}Patch"
    if patch_name in schemas:
        return patch_name
    patch = copy.deepcopy(schemas[name])
    schemas[patch_name] = patch
    patch["title"] = patch_name
    patch.pop("required", None)
    for member, schema in patch.get("properties", {}).items():
        schema.pop("default", None)
        if isinstance(values := schema.get("additionalProperties"), dict):
            schema["additionalProperties"] = {"anyOf": [values, {"type": "null"}]}
        target = schema.get("$ref", "").rpartition("/")[2]
        if target and schemas[target].get("type") == "object":
            schema["$ref"] = _REF.format(name=_add_patch(target, schemas))
        patch["properties"][member] = (
            {"anyOf": [schema, {"type": "null"}]} if member != "spec" else schema
        )
    return patch_name


def _operation(route: AnyRoute) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [_tag(route)],
    }
    if route.role is None:
        operation["security"] = []
    else:
        operation["description"] = f"Needs the role `{route.role}`."
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body_kind is not BodyKind.NONE:
        operation["requestBody"] = _request_body(route)
    operation["responses"] = _responses(route)
    operation["x-mica-problems"] = sorted(set(_problem_codes(route)))
    return operation


def _tag(route: AnyRoute) -> str:
    part = route.path.split("/")[2] if route.path.count("/") > 1 else "host"
    if part in ("claim", "tokens", "whoami"):
        return "access"
    return part if part in _TAGS else "host"


def _parameters(route: AnyRoute) -> list[dict[str, Any]]:
    parameters = [_path_parameter(route, name) for name in route.parameters]
    if route.query is not NoQuery:
        _, components = msgspec.json.schema_components([route.query], ref_template=_REF)
        schema = _clean(components[route.query.__name__])
        required = schema.get("required", [])
        for name, value in schema["properties"].items():
            value = _inline(value, components)
            parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required}
            if description := value.pop("description", None):
                parameter["description"] = description
            parameters.append({**parameter, "schema": value})
    if route.condition in (Condition.CREATE, Condition.EITHER):
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "description": "`*`: the object must be new, or the answer is 412.",
                "schema": {"type": "string", "const": "*"},
            }
        )
    if route.condition in (Condition.MATCH, Condition.EITHER):
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "description": "The ETag that the object must still have, or the answer is 412.",
                "schema": {"type": "string", "pattern": '^"(0|[1-9][0-9]{0,17})"$'},
            }
        )
    for name, description in route.request_headers.items():
        parameters.append(
            {
                "name": name,
                "in": "header",
                "required": False,
                "description": description,
                "schema": {"type": "string", "maxLength": 128, "pattern": "^[ -~]*$"},
            }
        )
    return parameters


def _path_parameter(route: AnyRoute, name: str) -> dict[str, Any]:
    if "/operations/" in route.path:
        schema: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    else:
        schema = _clean(msgspec.json.schema(Slug))
    schema.pop("description", None)
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _inline(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without references, which many generators don't follow there."""
    if target := schema.get("$ref", "").rpartition("/")[2]:
        found = dict(_clean(components[target]))
        found.pop("title", None)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**found, **rest}
    for each in schema.get("anyOf", []):
        if "$ref" in each:
            found = dict(_clean(components[each["$ref"].rpartition("/")[2]]))
            found.pop("title", None)
            return {**found, **{k: v for k, v in schema.items() if k != "anyOf"}}
    return dict(schema)


def _request_body(route: AnyRoute) -> dict[str, Any]:
    if route.body_kind in (BodyKind.STREAM, BodyKind.TUS):
        schema: dict[str, Any] = {}
    elif route.body_kind is BodyKind.MERGE_PATCH:
        schema = {"$ref": _REF.format(name=f"{route.body.__name__}Patch")}
    else:
        schema = {"$ref": _REF.format(name=route.body.__name__)}
    required = not route.body_optional
    return {"required": required, "content": {route.body_kind.value: {"schema": schema}}}


def _responses(route: AnyRoute) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for reply in route.replies:
        responses[str(reply.status)] = _reply(reply)
    for status in sorted(_statuses(route)):
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return responses


def _statuses(route: AnyRoute) -> set[int]:
    statuses = {code.status for code in _problem_codes(route)}
    if route.condition in (Condition.CREATE, Condition.EITHER):
        statuses.add(_EXISTS_STATUS)
    return statuses


def _problem_responses() -> dict[str, Any]:
    """One response for each status; an operation names its own problems in x-mica-problems."""
    by_status: dict[int, list[ProblemCode]] = {}
    for code in ProblemCode:
        by_status.setdefault(code.status, []).append(code)
    by_status[_EXISTS_STATUS].append(ProblemCode.ALREADY_EXISTS)
    return {
        f"Problem{status}": _problem_response(status, codes)
        for status, codes in sorted(by_status.items())
    }


def _problem_codes(route: AnyRoute) -> list[ProblemCode]:
    codes = [*_ALWAYS, *route.problems]
    if route.role is not None:
        codes += [ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN, ProblemCode.RATE_LIMITED]
    if route.parameters:
        codes.append(ProblemCode.NOT_FOUND)
    # A body where none is taken is read to its end before it is refused.
    codes += [ProblemCode.REQUEST_TIMEOUT, ProblemCode.TOO_LARGE]
    if route.body_kind is not BodyKind.NONE:
        codes.append(ProblemCode.UNSUPPORTED_MEDIA_TYPE)
    if route.condition is Condition.EITHER:
        codes.append(ProblemCode.PRECONDITION_REQUIRED)
    if route.condition in (Condition.MATCH, Condition.EITHER):
        codes.append(ProblemCode.REVISION_MISMATCH)
    return codes


def _reply(reply: Reply) -> dict[str, Any]:
    response: dict[str, Any] = {"description": reply.description, "headers": _headers()}
    if reply.etag:
        response["headers"]["ETag"] = _header("The object's revision; what If-Match takes.")
    if reply.location:
        response["headers"]["Location"] = _header("The path of the object, or of the operation.")
    for name, description in reply.headers.items():
        response["headers"][name] = _header(description)
    if reply.body is not None:
        if _is_model(reply.body):
            schema: dict[str, Any] = {"$ref": _REF.format(name=reply.body.__name__)}
        else:
            schema = {"type": "object"} if reply.body is dict else {"type": "string"}
            schema = {} if reply.body is bytes else schema
        response["content"] = {reply.media_type: {"schema": schema}}
    return response


def _problem_response(status: int, codes: list[ProblemCode]) -> dict[str, Any]:
    headers = _headers()
    if status == 401:
        headers["WWW-Authenticate"] = _header("`Bearer`.")
    if status in (429, 503):
        headers["Retry-After"] = {
            "description": "Seconds until it is worth another try.",
            "schema": {"type": "integer", "minimum": 0},
        }
    return {
        "description": "; ".join(f"`{code}`: {code.headline}" for code in codes) + ".",
        "headers": headers,
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
    }


def _headers() -> dict[str, Any]:
    return {"X-Request-Id": _header("This request, as the host's log names it.")}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


if __name__ == "__main__":
    sys.stdout.write(render())
