"""What others chose brings nothing into a terminal or a log: the whole class of such strings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import inspect

from vmkernel.control.wire import Call
from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, MicaError, Subject
from vmkernel.text import CleanFormatter, clean, clean_lines, escape_in_json

EVIL = {
    "ESC": "a\x1b[2Jb",
    "BEL": "a\x07",
    "NUL": "a\x00",
    "DEL": "a\x7f",
    "C1 CSI": "a\x9b2J",
    "C1 NEL": "a\x85b",
    "RLO": "a\u202eb",
    "RLI": "a\u2067b",
    "RLM": "a\u200fb",
    "ALM": "a\u061cb",
    "line separator": "a\u2028b",
    "carriage return": "a\rb",
    "backspace": "a\bb",
}
FREE = {
    "user_data": "data of a guest, which isn't shown in a terminal but by asking for it as it is",
    "network_config": "the same",
    "meta_data": "the same",
    "text": "keys that are pressed: what a US keyboard doesn't type is refused",
    "keys": "names of keys: those that there are",
    "after": "an id that was seen: any other finds nothing, and is not repeated",
    "token": "a credential, which is never shown",
    "origin": "our own half's word",
}
"""The fields that may hold anything, and why."""


def _strings(kind: Any, path: tuple[str, ...], seen: tuple[type, ...]) -> Iterator[Any]:
    """(path, type) of every string that a type takes."""
    if isinstance(kind, inspect.Metadata):
        yield from _strings(kind.type, path, seen)
    elif isinstance(kind, inspect.StrType):
        yield path, kind
    elif isinstance(kind, inspect.StructType):
        if kind.cls not in seen:
            for field in kind.fields:
                yield from _strings(field.type, (*path, field.encode_name), (*seen, kind.cls))
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _strings(each, path, seen)
    elif isinstance(kind, inspect.VarTupleType | inspect.ListType):
        yield from _strings(kind.item_type, path, seen)
    elif isinstance(kind, inspect.DictType):
        yield from _strings(kind.key_type, (*path, "*"), seen)
        yield from _strings(kind.value_type, path, seen)


def _inputs() -> list[Any]:
    found = {
        ("/".join(path), kind.pattern): (path, kind)
        for path, kind in _strings(inspect.type_info(Call), (), ())
        if not set(path) & set(FREE)
    }
    return [
        pytest.param(path, kind, id=key[0]) for key, (path, kind) in sorted(found.items(), key=str)
    ]


@pytest.mark.parametrize(("path", "kind"), _inputs())
def test_every_string_that_is_sent_refuses_them(path: tuple[str, ...], kind: Any) -> None:
    assert kind.max_length is not None or kind.pattern, f"{path} has no limit"
    taken = Annotated[str, msgspec.Meta(pattern=kind.pattern, max_length=kind.max_length)]
    several_lines = {"description", "ca_pem"} & set(path)
    for text in EVIL.values():
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(text, taken)
    if not several_lines:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert("a\nb", taken)


def test_there_are_strings_to_look_at() -> None:
    paths = {"/".join(param.values[0]) for param in _inputs()}
    assert {"request/spec/name", "request/spec/description", "request/spec/labels"} <= paths


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_what_is_not_sent_by_users_is_cleaned(text: str) -> None:
    for cleaned in (clean(text), clean_lines(text), escape_in_json(json.dumps(text))):
        assert not any(
            0x7F <= ord(c) <= 0x9F or c < " " or 0x2028 <= ord(c) <= 0x202E or c in "\u061c\u200f"
            for c in cleaned
        )
    assert json.loads(escape_in_json(json.dumps(text, ensure_ascii=False))) == text
    bus = EventBus()
    subscription = bus.subscribe()
    bus.publish("vm.x", Subject(kind="vm", id="web"), message=text, data={"said": text})
    event = subscription.poll()
    assert event is not None
    assert event.message == event.data["said"] == clean(text)
    assert MicaError(ErrorCode.CONFLICT, text).problem.detail == clean_lines(text)


def test_log_lines_are_cleaned() -> None:
    formatter = CleanFormatter("%(levelname)s %(name)s: %(message)s")

    def line(message: str, error: Exception | None = None) -> str:
        info = None if error is None else (type(error), error, None)
        record = logging.LogRecord("mica", logging.ERROR, "x", 1, message, None, info)
        return formatter.format(record)

    assert line("a\x1b]0;x\x07\nERROR mica: forged") == "ERROR mica: a]0;x ERROR mica: forged"
    assert line("a", ValueError("b\x9bc")) == "ERROR mica: a\nValueError: bc"
