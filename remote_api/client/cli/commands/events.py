"""`mica events`."""

from __future__ import annotations

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, pass_session

__all__ = ["COMMANDS"]


@click.command()
@click.option("--after", metavar="EVENT", help="Start after this event (default: now).")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type, or 'vm.*'.")
@click.option(
    "--subject", "subjects", multiple=True, metavar="KIND[/ID]", help="Only about this: 'vm/web'."
)
@click.option(
    "-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Only with this label."
)
@pass_session
def events(
    session: Session,
    after: str | None,
    types: tuple[str, ...],
    subjects: tuple[str, ...],
    labels: tuple[str, ...],
) -> None:
    """Follow events until interrupted, one per line.

    Filters can be given several times. With -o json, each line has the object as it became.
    """
    with session.mica() as mica:
        for event in mica.events(after, types=types, subjects=subjects, labels=labels):
            if session.json:
                output.print_json(event, compact=True)
            else:
                by = f" by {event.actor}" if event.actor else ""
                output.print_line(
                    f"{event.time} {event.type} {event.subject.kind} {event.subject.id}{by}"
                    f"{': ' + event.message if event.message else ''}"
                )


COMMANDS = (events,)
