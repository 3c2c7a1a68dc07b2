"""The options of all commands that were given so far, wherever they were."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["given_globally"]


def given_globally(context: click.Context) -> dict[str, Any]:
    """What was given so far, by the names of Session's attributes."""
    found: dict[str, Any] = context.meta.setdefault(__name__, {})
    return found
