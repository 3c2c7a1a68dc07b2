"""The examples of documents, as a user would type them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

__all__ = ["blocks", "checked", "command_lines", "words_of"]

_BLOCK = re.compile(r"^```\n(.*?)^```$", re.S | re.M)


def blocks(document: Path) -> list[str]:
    """The text of a document's code blocks."""
    return _BLOCK.findall(document.read_text())


def command_lines(block: str) -> list[str]:
    """The lines of a block that are commands, without their comments."""
    found = []
    for line in block.splitlines():
        text = re.sub(r"(^|\s+)# .*", "", line).rstrip()
        if text:
            found.append(text)
    return found


def checked(root: click.Command, words: list[str]) -> click.Command:
    """The command that words name; UsageError if its options or arguments are wrong."""
    assert words[0] == "mica", words
    command, arguments, parent = root, words[1:], None
    while True:
        context = command.make_context(command.name or "mica", list(arguments), parent=parent)
        if not isinstance(command, click.Group):
            return command
        # What click has kept for the next command; it has no public name for that yet.
        arguments, parent = [*context._protected_args, *context.args], context
        if not arguments:
            return command
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, words
        command = found


def words_of(line: str) -> list[str]:
    """The words of a line, as a shell splits them."""
    return shlex.split(line)
