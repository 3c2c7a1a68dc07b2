"""The `mica datastore` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.common import (
    Session,
    bytes_text,
    pass_session,
    show_rows,
    wait_option,
)
from remote_api.schema import (
    DatastoreKind,
    DatastoreSpec,
    Filesystem,
)

__all__ = ["datastore_group"]


@click.group("datastore")
def datastore_group() -> None:
    """Places for virtual machines, volumes and images."""


@datastore_group.command("list")
@pass_session
def list_datastores(session: Session) -> None:
    """List datastores."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.datastores(),
            (
                ("ID", lambda d: d.id),
                ("KIND", lambda d: d.spec.kind),
                ("STATE", lambda d: d.status.state),
                ("FREE", lambda d: bytes_text(d.status.free_bytes)),
                ("CAPACITY", lambda d: bytes_text(d.status.capacity_bytes)),
                ("ON", lambda d: d.spec.disk or d.spec.path),
                ("REASON", lambda d: d.status.reason),
            ),
        )


@datastore_group.command("create")
@click.argument("datastore_id")
@click.option("--disk", metavar="ID", help="A disk of the host; see `mica disk list`.")
@click.option("--path", help="A directory (hosted mode only).")
@click.option(
    "--filesystem",
    type=click.Choice([f.value for f in Filesystem]),
    default=Filesystem.XFS.value,
    show_default=True,
)
@click.option(
    "--wipe", metavar="DISK-ID", help="The disk's id once more: destroy all that it holds."
)
@wait_option
@pass_session
def create_datastore(
    session: Session,
    datastore_id: str,
    disk: str | None,
    path: str | None,
    filesystem: str,
    wipe: str | None,
    wait: bool,
) -> None:
    """Make a datastore on a disk, or take over the one that the disk holds."""
    if (disk is None) == (path is None):
        raise click.UsageError("give either --disk or --path")
    spec = DatastoreSpec(
        kind=DatastoreKind.LOCAL if disk is not None else DatastoreKind.DIRECTORY,
        disk=disk,
        path=path,
        filesystem=Filesystem(filesystem),
    )
    with session.mica() as mica:
        operation = mica.create_datastore(datastore_id, spec, wipe_serial=wipe)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is ready")


@datastore_group.command("delete")
@click.argument("datastore_id")
@wait_option
@pass_session
def delete_datastore(session: Session, datastore_id: str, wait: bool) -> None:
    """Unmount and forget a datastore; its data stay on the disk."""
    with session.mica() as mica:
        operation = mica.delete_datastore(datastore_id)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is forgotten")
