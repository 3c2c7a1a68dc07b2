"""`mica events`."""

from __future__ import annotations

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, pass_session

__all__ = ["COMMANDS"]


@click.command()
@click.option("--after", metavar="ID", help="Begin after this event.")
@pass_session
def events(session: Session, after: str | None) -> None:
    """Show what happens, until interrupted; one line an event."""
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
