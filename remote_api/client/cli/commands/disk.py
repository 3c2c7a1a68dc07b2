"""The `mica disk` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    wait_option,
)
from remote_api.client.cli.verbs import list_command, show_command
from remote_api.client.errors import ConflictError
from remote_api.client.sdk import Mica
from vmkernel.model import (
    DISK_LISTING,
    Disk,
    DiskPartition,
)

__all__ = ["COMMANDS"]


@click.group("disk")
def disk_group() -> None:
    """Show and wipe the host's disks."""


def _found(mica: Mica, disk_id: str) -> Disk:
    found = next((disk for disk in mica.disks() if disk.id == disk_id), None)
    if found is None:
        raise ConflictError(f"the host has no disk {disk_id}; see `mica disk list`")
    return found


def _partition(part: DiskPartition) -> str:
    named = " ".join(text for text in (part.label, part.uuid) if text)
    known = part.filesystem or "unknown"
    return f"{part.number}: {known}, {bytes_text(part.size_bytes)} {named}".rstrip()


_disk = click.argument("disk_id", metavar="DISK")
_LINES: Columns = (
    ("id", lambda d: d.id),
    ("device", lambda d: d.device),
    ("model", lambda d: d.model),
    ("serial", lambda d: d.serial),
    ("size", lambda d: bytes_text(d.size_bytes)),
    ("bus", lambda d: d.transport),
    ("rotates", lambda d: d.rotational),
    ("removable", lambda d: d.removable),
    ("boot stick", lambda d: d.is_stick),
    ("datastore", lambda d: d.datastore),
    ("adoptable as", lambda d: d.adoptable),
    (
        "holds",
        lambda d: (
            [_partition(p) for p in d.partitions] or ("nothing" if d.blank else "unknown data")
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
    ("media errors", lambda d: d.health and d.health.media_errors),
    ("power-on hours", lambda d: d.health and d.health.power_on_hours),
    ("health read", lambda d: d.health and d.health.checked_at),
)
_COLUMNS = listed(
    _LINES,
    *("id", "device", "size", "model", "bus"),
    (
        "holds",
        lambda d: (
            "boot stick"
            if d.is_stick
            else "nothing"
            if d.blank
            else [p.filesystem or "?" for p in d.partitions] or "unknown data"
        ),
    ),
    ("datastore", lambda d: d.datastore or (d.adoptable and "(adoptable)")),
    ("health", lambda d: d.health and d.health.state),
    ("temp", lambda d: d.health and d.health.temperature_celsius),
)
disk_group.add_command(
    list_command(
        lambda mica, **given: mica.disks(**given_query(given)),
        _COLUMNS,
        text="List the host's disks and what is on them.",
        parameters=list_options(DISK_LISTING),
    )
)
disk_group.add_command(
    show_command(
        _found, _LINES, text="Show a disk, what is on it and its health.", parameters=(_disk,)
    )
)


@disk_group.command("wipe")
@_disk
@click.option(
    "--serial",
    required=True,
    metavar="DISK",
    help="Confirm that all data on DISK is destroyed, by naming it again.",
)
@wait_option
@pass_session
def wipe_disk(session: Session, disk_id: str, serial: str, wait: bool) -> None:
    """Erase a disk: all data on it is destroyed."""
    if serial != disk_id:
        raise click.UsageError(f"--serial must be {disk_id}, the disk to wipe; nothing was changed")
    with session.mica() as mica:
        operation = mica.wipe_disk(disk_id)
        session.finish(mica, operation, wait=wait, done=f"disk {disk_id} wiped")


COMMANDS = (disk_group,)
