"""Options of the commands that add a context: whether it becomes the current one."""

from __future__ import annotations

import click

__all__ = ["how_to_use", "replace_option", "use_option"]

use_option = click.option(
    "--use", is_flag=True, help="Make it the current context (default: only if there is none)."
)
replace_option = click.option(
    "--replace", is_flag=True, help="Replace a context of the same name, with its token."
)


def how_to_use(name: str, current: bool) -> str:
    """What a message about a new context ends with."""
    if current:
        return "; it is the current context"
    return f"; the current context is unchanged: use this one with `mica context use {name}`"
