"""The `mica backup` commands."""

from __future__ import annotations

from pathlib import Path

import click

from remote_api.client.cli.common import Session, bytes_text, pass_session, say, show_rows

__all__ = ["backup_group"]

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group("backup")
def backup_group() -> None:
    """Backups of virtual machines, running or off, and what is made of them."""


@backup_group.command("create")
@click.argument("vm_id")
@click.argument("folder", type=FOLDER)
@pass_session
def create_backup(session: Session, vm_id: str, folder: Path) -> None:
    """Add a point to FOLDER: all disks the first time, then what changed.

    The VM may run or be off. Where the host can't tell what changed (after a crash, after going
    back to a snapshot, for a raw disk once the VM was off), the point is a whole one again.
    """
    from remote_api.client.backups import BackupFolder

    with session.mica() as mica:
        point = BackupFolder(folder).create(mica, vm_id, on_step=lambda text: say(session, text))
    size = sum(e.length for disk in point.disks for e in disk.extents if not e.zero)
    kind = "all of it" if point.since is None else "what changed"
    say(session, f"VM {vm_id} is backed up: {kind}, {bytes_text(size)}")


@backup_group.command("verify")
@click.argument("folder", type=FOLDER)
@pass_session
def verify_backup(session: Session, folder: Path) -> None:
    """Prove every file of FOLDER by its SHA-256."""
    from remote_api.client.backups import BackupFolder

    show_rows(
        session,
        BackupFolder(folder).verify(),
        (
            ("POINT", lambda p: p.checkpoint),
            ("VM", lambda p: p.vm),
            ("TIME", lambda p: p.created_at),
            ("KIND", lambda p: "changes" if p.since else "full"),
            ("QUIET", lambda p: p.quiet),
            (
                "DATA",
                lambda p: bytes_text(
                    sum(e.length for disk in p.disks for e in disk.extents if not e.zero)
                ),
            ),
        ),
    )


@backup_group.command("restore")
@click.argument("folder", type=FOLDER)
@click.option("--datastore", required=True)
@click.option("--prefix", required=True, help="The volumes are named PREFIX-disk0 and so on.")
@pass_session
def restore_backup(session: Session, folder: Path, datastore: str, prefix: str) -> None:
    """Make volumes of the last point of FOLDER."""
    from remote_api.client.backups import BackupFolder

    with session.mica() as mica:
        made = BackupFolder(folder).restore(
            mica,
            datastore=datastore,
            prefix=prefix,
            on_step=lambda text: say(session, text),
        )
    say(session, f"restored: {', '.join(made)}")
