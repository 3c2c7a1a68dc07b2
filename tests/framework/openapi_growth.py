"""What a newer OpenAPI document takes away from clients written for an older one.

A request that was right must stay right: nothing that could be sent is refused, nothing more is
required. An answer must stay readable: what was always there still is, of the types that it had.
Descriptions, examples and the order of members don't matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["losses"]

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_FIXED = ("pattern", "format", "multipleOf", "const", "contentMediaType")

Schema = dict[str, Any]


def losses(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Each thing that the new document takes away, in words that begin with its place."""
    return sorted(set(_Comparison(old, new).documents()))


class _Comparison:
    def __init__(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str, bool]] = set()

    def documents(self) -> Iterator[str]:
        """All losses."""
        for path, item in self._old["paths"].items():
            for method in _METHODS:
                if method not in item:
                    continue
                at = f"{method.upper()} {path}"
                operation = self._new["paths"].get(path, {}).get(method)
                if operation is None:
                    yield f"{at}: gone"
                else:
                    yield from self._operations(at, item[method], operation)
        for kind, parts in self._old["components"].items():
            for name in parts:
                if name not in self._new["components"].get(kind, {}):
                    yield f"#/components/{kind}/{name}: gone"

    def _operations(self, at: str, old: Schema, new: Schema) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{at}: another operationId"
        if old.get("security") == [] and new.get("security") != []:
            yield f"{at}: needs a token"
        yield from self._parameters(at, old.get("parameters", []), new.get("parameters", []))
        yield from self._bodies(at, old.get("requestBody"), new.get("requestBody"))
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"{at} {status}: gone"
            else:
                yield from self._responses(f"{at} {status}", response, new["responses"][status])
        for status in new["responses"]:
            if status.startswith("2") and status not in old["responses"]:
                yield f"{at} {status}: a success that clients don't know"

    def _parameters(self, at: str, old: list[Schema], new: list[Schema]) -> Iterator[str]:
        had = {(each["in"], each["name"]): each for each in old}
        has = {(each["in"], each["name"]): each for each in new}
        for key, parameter in had.items():
            place = f"{at} {key[0]} {key[1]}"
            if key not in has:
                yield f"{place}: gone"
                continue
            if has[key].get("required") and not parameter.get("required"):
                yield f"{place}: required"
            yield from self._schemas(place, parameter["schema"], has[key]["schema"], sent=True)
        for key, parameter in has.items():
            if key not in had and parameter.get("required"):
                yield f"{at} {key[0]} {key[1]}: required"

    def _bodies(self, at: str, old: Schema | None, new: Schema | None) -> Iterator[str]:
        if new is not None and new.get("required") and not (old or {}).get("required"):
            yield f"{at} body: required"
        for media, content in (old or {}).get("content", {}).items():
            if media not in (new or {}).get("content", {}):
                yield f"{at} body {media}: gone"
            else:
                assert new is not None
                other = new["content"][media]["schema"]
                yield from self._schemas(f"{at} body", content["schema"], other, sent=True)

    def _responses(self, at: str, old: Schema, new: Schema) -> Iterator[str]:
        old, new = self._found(self._old, old), self._found(self._new, new)
        for name in old.get("headers", {}):
            if name not in new.get("headers", {}):
                yield f"{at} header {name}: gone"
        for media, content in old.get("content", {}).items():
            if media not in new.get("content", {}):
                yield f"{at} {media}: gone"
            else:
                other = new["content"][media]["schema"]
                yield from self._schemas(at, content["schema"], other, sent=False)

    def _schemas(self, at: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[str]:
        """What is lost if a value was of the old schema; `sent`: by a client."""
        if "$ref" in old:
            # Each pair of components once, and by its own name: it is reached from many places.
            pair = (old["$ref"], new.get("$ref", at), sent)
            if pair in self._seen:
                return
            self._seen.add(pair)
            at = str(old["$ref"])
        old, new = self._found(self._old, old), self._found(self._new, new)
        if "anyOf" in old or "anyOf" in new:
            yield from self._alternatives(at, old, new, sent)
            return
        yield from self._kinds(at, old, new, sent)
        yield from self._values(at, old, new, sent)
        if sent:
            yield from _limits(at, old, new)
        for name in ("format", "contentMediaType"):
            if not sent and old.get(name) != new.get(name):
                yield f"{at}: another {name}"
        yield from self._objects(at, old, new, sent)
        for name in ("items", "contentSchema"):
            if name in old or name in new:
                yield from self._schemas(
                    f"{at}/{name}", old.get(name, {}), new.get(name, {}), sent=sent
                )

    def _alternatives(self, at: str, old: Schema, new: Schema, sent: bool) -> Iterator[str]:
        """Each that could be sent still can; each that is answered could be before."""
        had, has = old.get("anyOf", [old]), new.get("anyOf", [new])
        needed, offered = (had, has) if sent else (has, had)
        for each in needed:
            kind = _kind(self._found(self._old if sent else self._new, each))
            fitting = [
                other
                for other in offered
                if _kind(self._found(self._new if sent else self._old, other)) == kind
            ]
            if not fitting:
                yield f"{at}: {'no longer takes' if sent else 'may now answer'} {kind}"
                continue
            pair = (each, fitting[0]) if sent else (fitting[0], each)
            yield from self._schemas(at, *pair, sent=sent)

    def _kinds(self, at: str, old: Schema, new: Schema, sent: bool) -> Iterator[str]:
        had, has = _kinds(old), _kinds(new)
        narrow, wide = (had, has) if sent else (has, had)
        if wide and (not narrow or not narrow <= wide):
            yield f"{at}: of {sorted(has)}, was of {sorted(had)}"

    def _values(self, at: str, old: Schema, new: Schema, sent: bool) -> Iterator[str]:
        if sent and "enum" in new:
            for value in old.get("enum", ["anything else"]):
                if value not in new["enum"]:
                    yield f"{at}: no longer takes {value!r}"
        elif not sent and "enum" in old:
            for value in new.get("enum", ["anything else"]):
                if value not in old["enum"]:
                    yield f"{at}: may now answer {value!r}"
        for value in old.get("x-extensible-enum", []):
            if value not in new.get("x-extensible-enum", []):
                yield f"{at}: {value!r} is gone"

    def _objects(self, at: str, old: Schema, new: Schema, sent: bool) -> Iterator[str]:
        had, has = old.get("properties", {}), new.get("properties", {})
        for name, schema in had.items():
            if name in has:
                yield from self._schemas(f"{at}/{name}", schema, has[name], sent=sent)
            elif not sent or new.get("additionalProperties") is False:
                yield f"{at}/{name}: gone"
        required, was = set(new.get("required", [])), set(old.get("required", []))
        for name in sorted(required - was if sent else was - required):
            yield f"{at}/{name}: {'required' if sent else 'no longer always there'}"
        more, before = new.get("additionalProperties", {}), old.get("additionalProperties", {})
        if more is False and before is not False and sent:
            yield f"{at}: takes no other members"
        elif isinstance(more, dict) and isinstance(before, dict) and (more or before):
            yield from self._schemas(f"{at}/*", before, more, sent=sent)
        names = [each.get("propertyNames", {}) for each in (old, new)]
        if sent and any(names):
            yield from _limits(f"{at}/*", *names)

    @staticmethod
    def _found(document: dict[str, Any], schema: Schema) -> Schema:
        """The target of a reference, with the members beside it."""
        while "$ref" in schema:
            found: Any = document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found.get(part, {})
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**found, **rest}
        return schema


def _limits(at: str, old: Schema, new: Schema) -> Iterator[str]:
    for name in _LOWER:
        if name in new and new[name] > old.get(name, float("-inf")):
            yield f"{at}: {name} {new[name]}, was {old.get(name)}"
    for name in _UPPER:
        if name in new and new[name] < old.get(name, float("inf")):
            yield f"{at}: {name} {new[name]}, was {old.get(name)}"
    for name in _FIXED:
        if name in new and new[name] != old.get(name):
            yield f"{at}: {name} {new[name]!r}, was {old.get(name)!r}"
    if new.get("uniqueItems") and not old.get("uniqueItems"):
        yield f"{at}: uniqueItems"


def _kinds(schema: Schema) -> set[str]:
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind)


def _kind(schema: Schema) -> str:
    """What tells the alternatives of a value apart."""
    if "anyOf" in schema:
        return " or ".join(sorted(_kind(each) for each in schema["anyOf"]))
    return str(schema.get("title") or schema.get("type", "anything"))
