"""The `mica backup` commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import Session, bytes_text, pass_session, say, show_rows
from remote_api.client.cli.verbs import layout_options, vm_argument

if TYPE_CHECKING:
    from remote_api.client.backup.folder import Point

__all__ = ["COMMANDS"]


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    point: int
    vm: str
    created_at: str
    full: bool
    disks_only: bool
    quiet: bool
    data_bytes: int


FOLDER = click.Path(file_okay=False, path_type=Path)
POINT = click.IntRange(1, 9999)


@click.group("backup")
def backup_group() -> None:
    """Back up VMs to folders on this computer, and restore them."""


@backup_group.command("create")
@vm_argument
@click.argument("folder", type=FOLDER)
@pass_session
def create_backup(session: Session, vm_id: str, folder: Path) -> None:
    """Back up a VM: add a point to FOLDER.

    The first point is full, later ones contain the changes. A point contains the whole VM:
    spec, disks, firmware variables and TPM state. The VM may be running. If the changes are
    unknown (after a crash or a revert to a snapshot, or for a raw disk of a VM that was
    stopped), the point is a full one. Use one folder for each VM.
    """
    from remote_api.client.backup.folder import BackupFolder
    from remote_api.client.backup.making import add_point

    with session.mica() as mica:
        number, point = add_point(
            BackupFolder(folder), mica, vm_id, on_step=lambda text: say(session, text)
        )
    kind = "full" if point.since is None else "changes"
    say(session, f"VM {vm_id} backed up: point {number}, {kind}, {bytes_text(point.data_bytes)}")


@backup_group.command("list")
@layout_options
@click.argument("folder", type=FOLDER)
@pass_session
def list_backup(session: Session, folder: Path) -> None:
    """List the points of FOLDER, oldest first."""
    from remote_api.client.backup.folder import BackupFolder

    _show(session, BackupFolder(folder).points().items())


@backup_group.command("verify")
@layout_options
@click.argument("folder", type=FOLDER)
@pass_session
def verify_backup(session: Session, folder: Path) -> None:
    """Check every file of FOLDER against its SHA-256."""
    from remote_api.client.backup.folder import BackupFolder

    _show(session, BackupFolder(folder).verify().items())


@backup_group.command("prune")
@click.argument("folder", type=FOLDER)
@click.option(
    "--keep", type=POINT, required=True, metavar="N", help="Number of newest points to keep."
)
@pass_session
def prune_backup(session: Session, folder: Path, keep: int) -> None:
    """Remove the oldest points of FOLDER.

    Data that the oldest remaining point needs is merged into it, so all remaining points can be
    restored.
    """
    from remote_api.client.backup.folder import BackupFolder

    gone = BackupFolder(folder).prune(keep, on_step=lambda text: say(session, text))
    say(session, f"points removed: {', '.join(map(str, gone))}" if gone else "no points to remove")


@backup_group.command("restore")
@click.argument("folder", type=FOLDER)
@click.option(
    "--as",
    "vm_id",
    type=NAME,
    metavar="VM",
    help="Restore the whole VM under this name, with volumes VM-disk0 and so on.",
)
@click.option(
    "--prefix",
    type=NAME,
    metavar="PREFIX",
    help="Restore only the disks, as volumes PREFIX-disk0 and so on.",
)
@click.option(
    "--datastore",
    type=NAME,
    metavar="DATASTORE",
    help="Datastore to restore to (default with --as: that of the backed-up VM).",
)
@click.option("--point", type=POINT, metavar="N", help="Point to restore (default: the newest).")
@click.option(
    "--new-identity",
    is_flag=True,
    help="Give the VM a new UUID and new MAC addresses, to run it beside the original.",
)
@pass_session
def restore_backup(
    session: Session,
    folder: Path,
    vm_id: str | None,
    prefix: str | None,
    datastore: str | None,
    point: int | None,
    new_identity: bool,
) -> None:
    """Restore a VM, or only its disks, from FOLDER.

    The VM gets its spec, disks, firmware variables and TPM state, and is not started. If the
    restore fails, everything that it created is deleted.
    """
    from remote_api.client.backup.folder import BackupFolder
    from remote_api.client.backup.restoring import restore_vm, restore_volumes

    if (vm_id is None) == (prefix is None):
        raise click.UsageError("give either --as VM or --prefix PREFIX")
    if prefix is not None and new_identity:
        raise click.UsageError("--new-identity is only possible with --as")
    if prefix is not None and datastore is None:
        raise click.UsageError("--prefix needs --datastore")

    def step(text: str) -> None:
        say(session, text)

    chain = BackupFolder(folder)
    with session.mica() as mica:
        if vm_id is not None:
            restore_vm(
                chain,
                mica,
                vm_id,
                datastore=datastore,
                point=point,
                new_identity=new_identity,
                on_step=step,
            )
            say(session, f"VM {vm_id} restored; start it with `mica vm start {vm_id}`")
            return
        made = restore_volumes(
            chain, mica, datastore=datastore or "", prefix=prefix or "", point=point, on_step=step
        )
    say(session, f"volumes restored: {', '.join(made)}")


def _show(session: Session, points: Iterable[tuple[int, Point]]) -> None:
    rows = [
        _Row(
            point=number,
            vm=point.vm,
            created_at=point.created_at,
            full=point.since is None,
            disks_only=point.saved is None,
            quiet=point.quiet,
            data_bytes=point.data_bytes,
        )
        for number, point in points
    ]
    show_rows(
        session,
        rows,
        (
            ("POINT", lambda row: row.point),
            ("VM", lambda row: row.vm),
            ("TIME", lambda row: row.created_at),
            ("KIND", lambda row: "full" if row.full else "changes"),
            ("HOLDS", lambda row: "disks" if row.disks_only else "VM"),
            ("QUIET", lambda row: row.quiet),
            ("DATA", lambda row: bytes_text(row.data_bytes)),
        ),
    )


COMMANDS = (backup_group,)
