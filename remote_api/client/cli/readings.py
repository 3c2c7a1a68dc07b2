"""Readings of statistics that are shown once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import bytes_text

__all__ = ["bytes_or_none", "interval_option", "repeat", "watch_option"]

interval_option = click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two readings.",
)


watch_option = click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")


def repeat(once: Callable[[], None], interval_s: float, *, watch: bool) -> None:
    try:
        while True:
            time.sleep(interval_s)
            if watch:
                output.clear_screen()
            once()
            if not watch:
                return
    except KeyboardInterrupt:
        return


def bytes_or_none(count: float | None) -> str | None:
    return None if count is None else bytes_text(round(count))
