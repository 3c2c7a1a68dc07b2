"""The types of command-line arguments: names and sizes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import click
from click.shell_completion import CompletionItem

from remote_api.client.cli.completing import names_of
from remote_api.client.errors import MisuseError
from remote_api.client.http.names import checked_name

__all__ = ["NAME", "NAME_AND_KIND", "Name", "SIZE", "Size", "choice_of"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Name(click.ParamType[str]):
    """A name of an object of the host, checked before anything is sent."""

    name = "name"

    def __init__(self, *, kind_follows: bool = False) -> None:
        """`kind_follows`: a colon and more may follow, as in VOLUME:BUS."""
        self._kind_follows = kind_follows

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        text = str(value)
        try:
            checked_name(text.partition(":")[0] if self._kind_follows else text)
        except MisuseError as error:
            self.fail(str(error), param, ctx)
        return text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names of the host's objects."""
        return names_of(ctx, param, incomplete)


class Size(click.ParamType[int]):
    """A size such as 512M, 2G or 1048576: binary units, as `KiB`, `k` or `K`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The size in bytes."""
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().removesuffix("ib").removesuffix("b")
        digits, unit = (text[:-1], text[-1]) if text and text[-1] in "kmgt" else (text, "")
        try:
            return (
                int(float(digits) * _UNITS[unit]) if "." in digits else int(digits) * _UNITS[unit]
            )
        except ValueError:
            self.fail(
                f"{value!r} is not a size; use a number with a unit, such as 512M or 20G",
                param,
                ctx,
            )


NAME = Name()
NAME_AND_KIND = Name(kind_follows=True)
SIZE = Size()


def choice_of(values: Iterable[StrEnum]) -> click.Choice[str]:
    """One of a set of values, as text."""
    return click.Choice([value.value for value in values])
