"""How the help of `mica` and of every command reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from remote_api.client.cli import main
from tests.style.words import NEVER, NEVER_IN_HELP, never_in

WIDTH = 80
"""The narrowest terminal whose lists of commands show whole summaries."""
SPELLED_OUT = {"mica": {"virtual machines"}, "mica vm": {"virtual machines"}}
"""Where a term of the glossary is explained."""


def _commands(command: click.Command, words: str = "mica") -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, f"{words} {name}")


def _options(command: click.Command) -> Iterator[click.Option]:
    for parameter in command.get_params(click.Context(command)):
        if isinstance(parameter, click.Option):
            yield parameter


def _texts(command: click.Command) -> Iterator[str]:
    yield command.help or ""
    yield command.epilog or ""
    for option in _options(command):
        yield option.help or ""


COMMANDS = dict(_commands(main))
each_command = pytest.mark.parametrize("words", COMMANDS)


@each_command
def test_a_summary_is_a_sentence(words: str) -> None:
    first = (COMMANDS[words].help or "").split("\n\n")[0].strip()
    assert re.match(r"[A-Z].*[.:]\Z", first, re.DOTALL), first


@each_command
def test_every_option_has_help_that_is_a_sentence(words: str) -> None:
    wrong = [
        f"{option.opts[0]}: {option.help!r}"
        for option in _options(COMMANDS[words])
        if not re.match(r"[A-Z`{].*\.\Z", option.help or "", re.DOTALL)
    ]
    assert wrong == []


@each_command
def test_help_is_plain(words: str) -> None:
    found = [
        f"{word!r} in {text!r}"
        for text in _texts(COMMANDS[words])
        for word in never_in(text, {*NEVER, *NEVER_IN_HELP} - SPELLED_OUT.get(words, set()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "words", [words for words, command in COMMANDS.items() if isinstance(command, click.Group)]
)
def test_lists_of_commands_show_whole_summaries(words: str) -> None:
    context = click.Context(COMMANDS[words], info_name=words, terminal_width=WIDTH)
    shown = COMMANDS[words].get_help(context).partition("Commands:")[2]
    assert [line for line in shown.splitlines() if line.endswith("...")] == []


def test_what_is_not_plain_is_found() -> None:
    for text in ("Begin anew.", "Nothing is told.", "One, where none is given."):
        assert never_in(text, NEVER), text
