"""The `mica disk` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.common import Session, bytes_text, pass_session, show_rows

__all__ = ["disk_group"]


@click.group("disk")
def disk_group() -> None:
    """The host's disks."""


@disk_group.command("list")
@pass_session
def list_disks(session: Session) -> None:
    """List disks and what they hold."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.disks(),
            (
                ("ID", lambda d: d.id),
                ("DEVICE", lambda d: d.device),
                ("SIZE", lambda d: bytes_text(d.size_bytes)),
                ("MODEL", lambda d: d.model),
                ("BUS", lambda d: d.transport),
                (
                    "HOLDS",
                    lambda d: (
                        "the stick"
                        if d.is_stick
                        else "nothing"
                        if d.blank
                        else [p.filesystem or "?" for p in d.partitions] or "unknown data"
                    ),
                ),
                ("DATASTORE", lambda d: d.datastore),
            ),
        )
