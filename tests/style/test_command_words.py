"""The command line's words for the host's messages fit the messages that the host has.

`words.py` of the command line translates fields to options. A message that is changed on the host
would no longer be translated; a pattern without a message is of no use.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

import remote_api.schema
import vmkernel.model
from remote_api.client.cli import words
from remote_api.client.cli.words import in_words_of_the_command
from tests.style.sources import modules
from tests.style.test_words import sentences
from vmkernel.model import MicaError, VmSpec, VmState
from vmkernel.vm.states import VmRequest, check_legal

_LOG = re.compile(r"%[a-z.\d]")
"""Of a log line, which no command shows."""
_FINDINGS = "vmkernel.platform.security"
"""Its findings name the kernel's features, one of them by the name of a field (`io_uring`)."""


@cache
def _refusals() -> tuple[str, ...]:
    """Every refusal of a request in a state; they are composed of parts."""
    found = []
    for request in VmRequest:
        for state in VmState:
            try:
                check_legal("web", request, state)
            except MicaError as error:
                found.append(error.problem.detail)
    return tuple(found)


@cache
def _messages() -> tuple[str, ...]:
    """The host's messages, with `…` for their values."""
    told = [
        text
        for module in modules()
        if module.name.startswith("vmkernel.") and not module.name.startswith(_FINDINGS)
        for _, text in sentences(module.tree)
        if not _LOG.search(text)
    ]
    return (*told, *_refusals())


def _records(package: Any) -> Iterator[type[msgspec.Struct]]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                yield value


def _of_spec(kind: Any, into: set[str]) -> None:
    """The names of all fields below a type: `mica vm set` takes them as they are."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        into.update(kind.__struct_fields__)
        for each in get_type_hints(kind).values():
            _of_spec(each, into)
    for each in get_args(kind):
        _of_spec(each, into)


@cache
def _fields() -> frozenset[str]:
    """The fields of the API that aren't words of the command line, as far as they can be told
    from ordinary words."""
    spec: set[str] = set()
    _of_spec(VmSpec, spec)
    every = {
        name
        for package in (remote_api.schema, vmkernel.model)
        for record in _records(package)
        for name in record.__struct_fields__
    }
    return frozenset(name for name in every - spec if "_" in name)


def _fields_in(text: str) -> list[str]:
    return [
        word
        for word in re.findall(r"(?<![\w.$/{-])[a-z]+(?:_[a-z]+)+(?![\w(-])", text)
        if word in _fields()
    ]


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in words.WORDS], ids=str)
def test_the_host_has_a_message_for_every_pattern(pattern: re.Pattern[str]) -> None:
    assert any(pattern.search(message) for message in _messages())


def test_no_message_has_a_field_that_commands_call_differently() -> None:
    assert [
        (fields, message)
        for message in _messages()
        if (fields := _fields_in(in_words_of_the_command(message)))
    ] == []


def test_every_advice_of_a_refusal_names_a_command() -> None:
    advised = [message for message in _refusals() if ";" in message]
    assert advised
    for message in advised:
        assert re.search(r"; .* `mica vm \S+ web`", in_words_of_the_command(message)), message


def test_the_checks_find_what_they_look_for() -> None:
    assert {"allow_shrink", "take_over", "wipe_serials"} <= _fields()
    assert "memory_bytes" not in _fields()
    assert _fields_in("Mount it with take_over.") == ["take_over"]
