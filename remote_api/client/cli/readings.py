"""Readings of statistics that are shown once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import bytes_text

__all__ = ["INTERVAL_S", "bytes_or_none", "interval_option", "repeat", "watch_option"]

INTERVAL_S = 2.0
"""Often enough to follow by eye, and little work for the host."""

interval_option = click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.5, 3600),
    default=INTERVAL_S,
    show_default=True,
    metavar="SECONDS",
    help="Time between two readings.",
)


watch_option = click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")


def repeat(
    once: Callable[[], None], interval_s: float, *, watch: bool, at_once: bool = False
) -> None:
    """Show one reading, or one after another until Ctrl-C. Rates need an interval before the first
    reading; what is only read is shown `at_once`. In a pipe, a blank line divides two readings."""
    first = True
    try:
        while True:
            if not (first and at_once):
                time.sleep(interval_s)
            if watch and not first:
                output.between_frames()
            elif watch:
                output.clear_screen()
            once()
            first = False
            output.flush()
            if not watch:
                return
    except KeyboardInterrupt:
        if not watch:
            raise


def bytes_or_none(count: float | None) -> str | None:
    return None if count is None else bytes_text(round(count))
