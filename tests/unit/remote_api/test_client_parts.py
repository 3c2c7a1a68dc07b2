"""What the client is put together from: every part is found, and a transfer that fails is tried
again a bounded number of times."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import time
from pathlib import Path

import pytest

from remote_api.client import sdk
from remote_api.client.cli import commands, main
from remote_api.client.errors import UnreachableError
from remote_api.client.sdk import Mica, retries
from remote_api.client.sdk.base import Calls
from remote_api.client.sdk.retries import Retries


def test_every_noun_of_the_sdk_is_part_of_mica() -> None:
    found = [
        kind
        for module in pkgutil.iter_modules(sdk.__path__, f"{sdk.__name__}.")
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        if issubclass(kind, Calls)
    ]
    assert len(set(found)) > 10
    assert [kind.__name__ for kind in found if not issubclass(Mica, kind)] == []


def test_every_module_of_the_command_has_a_command() -> None:
    folder = Path(str(commands.__file__)).parent
    modules = {path.stem for path in folder.iterdir() if not path.name.startswith("__")}
    for name in modules:
        module = importlib.import_module(f"{commands.__name__}.{name}")
        assert module.COMMANDS
        for command in module.COMMANDS:
            assert main.commands[command.name] is command


def test_a_transfer_is_tried_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    again = Retries(0.5)

    def fail(text: str) -> None:
        try:
            raise UnreachableError(text)
        except UnreachableError:
            again.failed()

    for _ in range(retries._RETRIES):
        fail("broken")
    with pytest.raises(UnreachableError, match="the last time"):
        fail("the last time")
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    again.succeeded()
    fail("once more")
    assert pauses[-1] == 0.5
