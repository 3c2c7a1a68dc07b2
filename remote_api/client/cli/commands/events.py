"""`mica events`."""

from __future__ import annotations

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, pass_session

__all__ = ["COMMANDS"]


@click.command()
@click.option("--after", metavar="EVENT", help="Start after this event (default: now).")
@pass_session
def events(session: Session, after: str | None) -> None:
    """Follow events until interrupted, one per line."""
    with session.mica() as mica:
        for event in mica.events(after):
            if session.json:
                output.print_json(event, compact=True)
            else:
                by = f" by {event.actor}" if event.actor else ""
                output.print_line(
                    f"{event.time} {event.type} {event.subject.kind} {event.subject.id}{by}"
                    f"{': ' + event.message if event.message else ''}"
                )


COMMANDS = (events,)
