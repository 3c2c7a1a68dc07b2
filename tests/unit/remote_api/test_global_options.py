"""The options of all commands: before and after every sub-command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from remote_api.client.cli import main
from remote_api.client.cli.session import Session, pass_session

GLOBAL = {"--host", "--output", "--timeout", "--quiet", "--debug"}


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield (*words, name)
            yield from _commands(below, (*words, name))


def _found(words: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


@pytest.mark.parametrize("words", list(_commands(main, ())))
def test_every_command_takes_them(words: tuple[str, ...]) -> None:
    command = _found(words)
    options = [name for parameter in command.params for name in parameter.opts]
    assert set(options) >= GLOBAL
    assert len(options) == len(set(options)), "an option of the command has the same name"
    assert "see `mica --help`" in (command.epilog or "")


GIVEN = ("--host", "alpha", "-o", "yaml", "--timeout", "7", "-q", "--debug")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_they_are_taken_at_every_place(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Session] = []

    @pass_session
    def run(session: Session, /, **_: object) -> None:
        seen.append(session)

    monkeypatch.setattr(_found(("volume", "show")), "callback", run)
    words = ["volume", "show", "v"]
    result = CliRunner().invoke(main, [*words[:place], *GIVEN, *words[place:]])
    assert result.exit_code == 0, result.stderr
    (session,) = seen
    assert session.host_name == "alpha"
    assert (session.output, session.timeout_s) == ("yaml", 7.0)
    assert (session.quiet, session.debug) == (True, True)


def test_the_last_one_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @pass_session
    def run(session: Session, /, **_: object) -> None:
        seen.append(session.output)

    monkeypatch.setattr(_found(("volume", "show")), "callback", run)
    CliRunner().invoke(main, ["-o", "json", "volume", "show", "v", "-o", "wide"])
    CliRunner().invoke(main, ["-o", "json", "volume", "show", "v"])
    CliRunner().invoke(main, ["volume", "show", "v"])
    assert seen == ["wide", "json", "table"]
