"""Which commands there are: whatever the modules of a package list in COMMANDS."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import click

__all__ = ["commands_in"]


def commands_in(package: str) -> Iterator[click.Command]:
    """The commands of a package's modules, in the order of the modules' names."""
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__, f"{package}."):
        yield from importlib.import_module(module.name).COMMANDS
