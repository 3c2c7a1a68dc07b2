"""The schemas of the OpenAPI document: what requests may contain, and what responses promise.

A wire type that both have becomes two schemas. A request's says what may be sent: optional fields,
limits, nothing else. An answer's (`…Answer` beside the other) promises what is always there, and
leaves room for a newer host: no limits, further fields, further values of what is a closed set
today. A merge patch has a third form (`…Patch`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import msgspec
import msgspec.inspect as mi

from remote_api.document.changes import CHANGE, add_changes
from remote_api.document.descriptions import described
from remote_api.schema import OBSERVED

__all__ = ["REF", "answer_ref", "parameter_schemas", "patch_ref", "request_ref", "schemas"]

REF = "#/components/schemas/{name}"
_LIMITS = frozenset(
    {
        *("pattern", "minLength", "maxLength", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
_FORMATS = {"integer": "int64", "number": "double"}
"""Without a format, many generators take an integer for one of 32 bits."""
_OPEN = "A newer host may return other values."


def schemas(
    requests: Iterable[type[Any]], answers: Iterable[type[Any]], patches: Iterable[type[Any]]
) -> dict[str, Any]:
    """All components of these bodies, by name."""
    patched = sorted(patches, key=_name)
    wires = sorted({*requests, *answers, *patched}, key=_name)
    parts = _components(wires)
    add_changes(parts)
    sent = _reached({_name(wire) for wire in (*requests, *patched)}, parts)
    answered = _reached({_name(wire) for wire in answers}, parts)
    made = {name: _request_form(parts[name]) for name in sorted(sent)}
    for wire in patched:
        _add_patch(_name(wire), made)
    used = _reached({_name(wire) for wire in requests}, made)
    for wire in patched:
        used |= _reached({f"{_name(wire)}Patch"}, made)
    kept = {name: schema for name, schema in made.items() if name in used}
    for name in sorted(answered):
        own = _answer_name(name, sent)
        kept[own] = _answer_form(parts[name], sent) | {"title": own}
    return dict(sorted(kept.items()))


def request_ref(wire: type[Any]) -> dict[str, Any]:
    """The schema of a request's body."""
    return {"$ref": REF.format(name=_name(wire))}


def patch_ref(wire: type[Any]) -> dict[str, Any]:
    """The schema of a merge patch."""
    return {"$ref": REF.format(name=f"{_name(wire)}Patch")}


def answer_ref(wire: type[Any], requests: Iterable[type[Any]]) -> dict[str, Any]:
    """The schema of an answer's body, which is no body of a request."""
    assert wire not in set(requests)
    return {"$ref": REF.format(name=_name(wire))}


def parameter_schemas(query: type[Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each parameter of a query: its name, its schema without references, whether it is needed."""
    parts = _components([query])
    own = parts[_name(query)]
    for name, schema in own["properties"].items():
        yield name, _formatted(_inline(schema, parts)), name in own.get("required", [])


def _components(wires: Iterable[type[Any]]) -> dict[str, Any]:
    """The schemas of these types and of all that they lead to, by name."""
    wires = list(wires)
    _, found = msgspec.json.schema_components(wires, ref_template=REF)
    parts: dict[str, Any] = _clean(found)
    for wire in wires:
        if parameters := get_args(wire):
            name = _name(wire)
            made = f"{wire.__name__}_{parameters[0].__name__}_"  # msgspec's name for it
            parts[name] = parts.pop(made) | {"title": name}
    for record in _records(wires):
        part = parts[_name(record)]
        part["properties"] = described(record, part["properties"])
    return parts


def _records(wires: Iterable[type[Any]]) -> set[type[Any]]:
    """These types and the records that they lead to."""
    found: set[type[Any]] = set()
    left = [mi.type_info(wire) for wire in wires]
    while left:
        info = left.pop()
        if isinstance(info, mi.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
            left += [field.type for field in info.fields]
        elif isinstance(info, mi.Metadata):
            left.append(info.type)
        elif isinstance(info, mi.UnionType):
            left += info.types
        elif isinstance(info, mi.CollectionType):
            left.append(info.item_type)
        elif isinstance(info, mi.DictType):
            left += [info.key_type, info.value_type]
    return found


def _name(wire: Any) -> str:
    """Of a component; a generic type says how it is named by what it is of."""
    if not (parameters := get_args(wire)):
        return str(wire.__name__)
    return str(wire.NAMED).format(parameters[0].__name__.removesuffix("Spec"))


def _answer_name(name: str, sent: set[str]) -> str:
    return f"{name}Answer" if name in sent else name


def _reached(names: set[str], parts: dict[str, Any]) -> set[str]:
    """The components that these lead to, and they themselves."""
    reached: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += _targets(parts[name])
    return reached


def _targets(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(target := schema.get("$ref"), str):
            yield target.rpartition("/")[2]
        for value in schema.values():
            yield from _targets(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _targets(value)


def _request_form(schema: dict[str, Any]) -> dict[str, Any]:
    formed: dict[str, Any] = _formatted(schema)
    if not formed.get("required", True):
        del formed["required"]
    for name, member in formed.get("properties", {}).items():
        # A default beside a reference breaks generators; any other is sent by them as if it had
        # been chosen, and keeps today's default in tomorrow's requests. So it is told in words.
        default = member.pop("default", None)
        if default is not None and isinstance(default, str | int | float) and default != "":
            told = f"Default: `{json.dumps(default).strip(chr(34))}`."
            member["description"] = f"{member.get('description', '')} {told}".strip()
        formed["properties"][name] = member
    return formed


def _answer_form(schema: Any, sent: set[str]) -> Any:
    if isinstance(schema, list):
        return [_answer_form(each, sent) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "enum" in schema:
        known = ", ".join(f"`{value}`" for value in schema["enum"])
        told = f"{schema.get('description', '')} Known values: {known}. {_OPEN}".strip()
        return {"type": "string", "description": told, "x-extensible-enum": schema["enum"]}
    formed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _LIMITS or key == "default" or (key == "additionalProperties" and not value):
            continue
        if key == "$ref":
            name = value.rpartition("/")[2]
            formed[key] = REF.format(name=_answer_name(name, sent))
        elif key == "properties":
            formed[key] = {name: _answer_form(each, sent) for name, each in value.items()}
        else:
            formed[key] = (
                _answer_form(value, sent) if key not in ("examples", "required") else value
            )
    if properties := schema.get("properties"):
        needed = schema.get("required", [])
        formed["required"] = [n for n, p in properties.items() if n in needed or "default" in p]
    return _formatted(formed)


def _add_patch(name: str, made: dict[str, Any]) -> str:
    """The merge-patch form of an object: no member is needed, null removes what has a default."""
    patch_name = f"{name}Patch"
    if patch_name in made:
        return patch_name
    patch = copy.deepcopy(made[name])
    made[patch_name] = patch
    patch["title"] = patch_name
    needed = patch.pop("required", [])
    members = patch["properties"]
    if set(OBSERVED) <= set(members):
        for observed in OBSERVED:
            del members[observed]
    for member, schema in members.items():
        if isinstance(values := schema.get("additionalProperties"), dict):
            schema["additionalProperties"] = {"anyOf": [values, {"type": "null"}]}
        for each in (schema, *schema.get("anyOf", [])):
            target = each.get("$ref", "").rpartition("/")[2]
            if target and made[target].get("type") == "object":
                each["$ref"] = REF.format(name=_add_patch(target, made))
        if member not in needed and {"type": "null"} not in schema.get("anyOf", []):
            told = {key: schema.pop(key) for key in ("description", CHANGE) if key in schema}
            members[member] = {"anyOf": [schema, {"type": "null"}], **told}
    return patch_name


def _formatted(schema: Any) -> Any:
    """Each number with its format; a point in time by its format alone, an enum with its type."""
    if isinstance(schema, list):
        return [_formatted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    formed = {
        key: value if key == "examples" else _formatted(value) for key, value in schema.items()
    }
    kind = formed.get("type")
    if isinstance(kind, str) and kind in _FORMATS:
        formed["format"] = _FORMATS[kind]
    if formed.get("format") == "date-time":
        for limit in _LIMITS:
            formed.pop(limit, None)
    if isinstance(formed.get("enum"), list):
        formed["type"] = "string"
    return formed


def _inline(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without references, which many generators don't follow there."""
    for each in (schema, *schema.get("anyOf", [])):
        if target := each.get("$ref", "").rpartition("/")[2]:
            found = {key: value for key, value in parts[target].items() if key != "title"}
            rest = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
            return {**found, **rest}
    return dict(schema)


def _clean(schema: Any) -> Any:
    """Patterns as ECMA 262 reads them (see Slug), docstrings as text.

    The indentation of docstrings differs between versions of Python.
    """
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _clean_value(key, value) for key, value in schema.items()}


def _clean_value(key: str, value: Any) -> Any:
    if isinstance(value, str) and key == "pattern":
        return value.removesuffix(r"(?!\n)")
    if isinstance(value, str) and key == "description":
        return " ".join(value.split())
    return _clean(value)
