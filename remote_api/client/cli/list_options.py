"""The options of every `list` command, made of what its noun can be filtered by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from vmkernel.model import Column, Listing

__all__ = ["given_query", "list_options"]

Parameter = Callable[[Callable[..., Any]], Callable[..., Any]]
_PLAIN = ("id",)
"""Filters without an option of their own: a name is an argument of `show`."""


def list_options(listing: Listing) -> tuple[Parameter, ...]:
    """`-l/--label`, and one option for each column."""
    options: list[Parameter] = []
    if listing.labels:
        options.append(
            click.option(
                *("-l", "--label", "label"),
                multiple=True,
                type=Condition(),
                metavar="SELECTOR",
                help="Only those whose labels match: KEY=VALUE, KEY!=VALUE, KEY or !KEY."
                " Can be repeated; all must hold.",
            )
        )
    options += [
        _filter(listing, name, column)
        for name, column in listing.filters.items()
        if name not in _PLAIN
    ]
    return tuple(options)


def given_query(given: dict[str, Any]) -> dict[str, Any]:
    """The query of the options that were given."""
    return {name: value for name, value in given.items() if value not in (None, ())}


class Condition(click.ParamType[str]):
    """What a column may be, as the host takes it; of a closed set it is checked here."""

    name = "values"

    def __init__(self, choices: Iterable[str] = ()) -> None:
        self._choices = tuple(choices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        text = str(value)
        for each in text.split(",") if self._choices else ():
            if each not in self._choices:
                self.fail(f"{each!r} is none of {', '.join(self._choices)}", param, ctx)
        return text


def _filter(listing: Listing, name: str, column: Column) -> Parameter:
    choices = listing.choices(column)
    told = f"Only those with this {name.replace('_', ' ')}"
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=Condition(choices),
        metavar="VALUES",
        help=f"{told}; several are separated by commas"
        + (f": {', '.join(choices)}." if choices else ", and * matches any text."),
    )
