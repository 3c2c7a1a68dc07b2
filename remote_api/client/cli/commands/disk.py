"""The `mica disk` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.errors import ConflictError
from vmkernel.model import DiskPartition

__all__ = ["COMMANDS"]


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
                ("DATASTORE", lambda d: d.datastore or (d.adoptable and "(adoptable)")),
                ("HEALTH", lambda d: d.health and d.health.state),
                ("TEMP", lambda d: d.health and d.health.temperature_celsius),
            ),
        )


@disk_group.command("show")
@click.argument("disk_id")
@pass_session
def show_disk(session: Session, disk_id: str) -> None:
    """Show a disk, what it holds and its health."""
    with session.mica() as mica:
        found = next((disk for disk in mica.disks() if disk.id == disk_id), None)
    if found is None:
        raise ConflictError(f"the host has no disk {disk_id}")
    show_object(
        session,
        found,
        (
            ("id", lambda d: d.id),
            ("device", lambda d: d.device),
            ("model", lambda d: d.model),
            ("serial", lambda d: d.serial),
            ("size", lambda d: bytes_text(d.size_bytes)),
            ("bus", lambda d: d.transport),
            ("rotates", lambda d: d.rotational),
            ("removable", lambda d: d.removable),
            ("the stick", lambda d: d.is_stick),
            ("datastore", lambda d: d.datastore),
            ("adoptable as", lambda d: d.adoptable),
            (
                "holds",
                lambda d: (
                    [_partition(p) for p in d.partitions]
                    or ("nothing" if d.blank else "unknown data")
                ),
            ),
            ("health", lambda d: d.health and f"{d.health.state} {d.health.reason or ''}".strip()),
            ("temperature", lambda d: d.health and d.health.temperature_celsius),
            ("wear, percent", lambda d: d.health and d.health.wear_percent),
            ("spare, percent", lambda d: d.health and d.health.spare_percent),
            (
                "sectors replaced, pending",
                lambda d: d.health and (d.health.reallocated_sectors, d.health.pending_sectors),
            ),
            ("data lost", lambda d: d.health and d.health.media_errors),
            ("power-on hours", lambda d: d.health and d.health.power_on_hours),
            ("read at", lambda d: d.health and d.health.checked_at),
        ),
    )


def _partition(part: DiskPartition) -> str:
    named = " ".join(text for text in (part.label, part.uuid) if text)
    known = part.filesystem or "nothing known"
    return f"{part.number}: {known}, {bytes_text(part.size_bytes)} {named}".rstrip()


@disk_group.command("wipe")
@click.argument("disk_id")
@click.option("--serial", required=True, help="The disk's id once more: destroy all it holds.")
@wait_option
@pass_session
def wipe_disk(session: Session, disk_id: str, serial: str, wait: bool) -> None:
    """Destroy all that a disk holds, so that it is blank."""
    if serial != disk_id:
        raise click.UsageError(f"--serial is not {disk_id}; nothing was done")
    with session.mica() as mica:
        operation = mica.wipe_disk(disk_id)
        session.finish(mica, operation, wait=wait, done=f"disk {disk_id} is blank")


COMMANDS = (disk_group,)
