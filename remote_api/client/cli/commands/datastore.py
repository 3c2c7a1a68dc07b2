"""The `mica datastore` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    one_step,
    pass_session,
    say,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.sdk import Mica
from vmkernel.model import (
    Datastore,
    DatastoreKind,
    DatastoreMember,
    DatastoreSpec,
    DatastoreStatus,
    Filesystem,
    NfsSpec,
    NfsVersion,
    RaidLevel,
    RaidStatus,
)

__all__ = ["COMMANDS"]


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
                ("PROVISIONED", lambda d: bytes_text(d.status.provisioned_bytes)),
                ("ON", _place),
                ("RAID", lambda d: d.status.raid and _raid_text(d.status.raid)),
                ("REASON", lambda d: d.status.reason),
            ),
        )


@datastore_group.command("show")
@click.argument("datastore_id", type=NAME)
@pass_session
def show_datastore(session: Session, datastore_id: str) -> None:
    """Show a datastore, its disks and its array."""
    with session.mica() as mica:
        show_object(
            session,
            mica.datastore(datastore_id),
            (
                ("id", lambda d: d.id),
                ("kind", lambda d: d.spec.kind),
                ("state", lambda d: d.status.state),
                ("reason", lambda d: d.status.reason),
                ("uuid", lambda d: d.status.uuid),
                ("on", _place),
                ("file system", lambda d: _filesystem_of(d.status)),
                ("capacity", lambda d: bytes_text(d.status.capacity_bytes)),
                ("free", lambda d: f"{bytes_text(d.status.free_bytes)} ({d.status.space})"),
                ("provisioned", lambda d: bytes_text(d.status.provisioned_bytes)),
                (
                    "thresholds",
                    lambda d: f"{d.spec.warning_percent} %, {d.spec.critical_percent} %",
                ),
                ("raid", lambda d: d.status.raid and _raid_lines(d.status.raid)),
                ("disks", lambda d: [_member(m) for m in d.status.members]),
                ("spares", lambda d: d.spec.spares),
                ("device", lambda d: d.status.device),
                ("created", lambda d: d.created_at),
                ("revision", lambda d: d.revision),
            ),
        )


_filesystem = click.option(
    "--filesystem",
    type=click.Choice([f.value for f in Filesystem]),
    default=Filesystem.XFS.value,
    show_default=True,
)
_wipe = click.option(
    "--wipe",
    metavar="DISK-ID",
    multiple=True,
    help="The id of a disk that holds anything, once more: destroy all that it holds.",
)
_disks = click.option(
    "--disk", "disks", metavar="ID", multiple=True, help="A disk of the host; see `mica disk list`."
)
_level = click.option(
    "--raid",
    "level",
    type=click.Choice([level.value for level in RaidLevel]),
    help="Mirror the disks; without it, several disks are joined one after the other (LVM).",
)
_nfs = click.option("--nfs", metavar="SERVER:/EXPORT", help="What an NFS server exports.")
_nfs_version = click.option(
    "--nfs-version",
    type=click.Choice([version.value for version in NfsVersion]),
    help="Only this one; by default the newest that the server speaks.",
)
_path = click.option("--path", help="A directory (hosted mode only).")
_take_over = click.option(
    "--take-over", is_flag=True, help="Even from another Mica that is at work: that one loses it."
)


@datastore_group.command("create")
@click.argument("datastore_id", type=NAME)
@_disks
@_level
@click.option("--spare", "spares", metavar="ID", multiple=True, help="A disk in reserve (--raid).")
@_nfs
@_nfs_version
@click.option("--nfs-port", type=click.IntRange(1, 65535))
@click.option("--nfs-mount-port", type=click.IntRange(1, 65535), help="Version 3 only.")
@_path
@_filesystem
@_wipe
@wait_option
@pass_session
def create_datastore(
    session: Session,
    datastore_id: str,
    disks: tuple[str, ...],
    level: str | None,
    spares: tuple[str, ...],
    nfs: str | None,
    nfs_version: str | None,
    nfs_port: int | None,
    nfs_mount_port: int | None,
    path: str | None,
    filesystem: str,
    wipe: tuple[str, ...],
    wait: bool,
) -> None:
    """Make a datastore on one disk, on several, or on a server; or take over the one there."""
    if sum(map(bool, (disks, nfs, path))) != 1:
        raise click.UsageError("give one of --disk, --nfs and --path")
    if nfs is not None:
        spec = _nfs_spec(nfs, nfs_version, nfs_port, nfs_mount_port)
    elif path is not None:
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=path)
    elif level is None and spares:
        raise click.UsageError("--spare goes with --raid")
    else:
        spec = _disk_spec(disks, spares, level, Filesystem(filesystem))
    with session.mica() as mica:
        operation = mica.create_datastore(datastore_id, spec, wipe_serials=wipe)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is ready")


@datastore_group.command("adopt")
@click.argument("datastore_id", type=NAME)
@_disks
@_nfs
@_nfs_version
@_path
@_take_over
@wait_option
@pass_session
def adopt_datastore(
    session: Session,
    datastore_id: str,
    disks: tuple[str, ...],
    nfs: str | None,
    nfs_version: str | None,
    path: str | None,
    take_over: bool,
    wait: bool,
) -> None:
    """Take over the datastore of another Mica; nothing is ever made or overwritten.

    That Mica must have let it go, or be silent (which takes half a minute to see).
    """
    if sum(map(bool, (disks, nfs, path))) != 1:
        raise click.UsageError("give one of --disk, --nfs and --path")
    with session.mica() as mica:
        if nfs is not None:
            spec = _nfs_spec(nfs, nfs_version, None, None)
        elif path is not None:
            spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=path)
        else:
            kinds = {disk.id: disk.adoptable for disk in mica.disks()}
            kind = kinds.get(disks[0]) or DatastoreKind.LOCAL
            if kind is DatastoreKind.LOCAL:
                spec = DatastoreSpec(kind=kind, disk=disks[0])
            else:
                spec = DatastoreSpec(kind=kind, disks=disks)
        operation = mica.create_datastore(datastore_id, spec, adopt=True, take_over=take_over)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is taken over")


@datastore_group.command("set")
@click.argument("datastore_id", type=NAME)
@click.option("--warning", metavar="PERCENT", type=click.IntRange(1, 100))
@click.option("--critical", metavar="PERCENT", type=click.IntRange(1, 100))
@pass_session
def set_thresholds(
    session: Session, datastore_id: str, warning: int | None, critical: int | None
) -> None:
    """Set the levels at which a datastore is reported as filling up."""
    if warning is None and critical is None:
        raise click.UsageError("say what shall change: --warning, --critical or both")
    with session.mica() as mica:
        mica.set_thresholds(datastore_id, warning_percent=warning, critical_percent=critical)
    say(session, f"datastore {datastore_id} is changed")


@datastore_group.command("rename")
@click.argument("datastore_id", type=NAME)
@click.argument("new_id", type=NAME)
@wait_option
@pass_session
def rename_datastore(session: Session, datastore_id: str, new_id: str, wait: bool) -> None:
    """Call a datastore otherwise on this host; its virtual machines follow."""
    with session.mica() as mica:
        operation = mica.rename_datastore(datastore_id, new_id)
        session.finish(mica, operation, wait=wait, done=f"{datastore_id} is called {new_id} now")


@datastore_group.command("mount")
@click.argument("datastore_id", type=NAME)
@_take_over
@wait_option
@pass_session
def mount_datastore(session: Session, datastore_id: str, take_over: bool, wait: bool) -> None:
    """Mount a datastore that was unmounted, or that another Mica held."""
    with session.mica() as mica:
        operation = mica.mount_datastore(datastore_id, take_over=take_over)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is mounted")


@datastore_group.command("add-disk")
@click.argument("datastore_id", type=NAME)
@click.argument("disk")
@_wipe
@wait_option
@pass_session
def add_disk(
    session: Session, datastore_id: str, disk: str, wipe: tuple[str, ...], wait: bool
) -> None:
    """Give a datastore one DISK more: a spare of raid, space of lvm."""
    with session.mica() as mica:
        operation = mica.add_datastore_disk(datastore_id, disk, wipe_serials=wipe)
        session.finish(mica, operation, wait=wait, done=f"{datastore_id} has disk {disk}")


@datastore_group.command("replace-disk")
@click.argument("datastore_id", type=NAME)
@click.argument("old")
@click.argument("new")
@_wipe
@wait_option
@pass_session
def replace_disk(
    session: Session, datastore_id: str, old: str, new: str, wipe: tuple[str, ...], wait: bool
) -> None:
    """Put the disk NEW in the place of OLD in a raid; the rebuild goes on behind it."""
    with session.mica() as mica:
        operation = mica.replace_datastore_disk(datastore_id, old, new, wipe_serials=wipe)
        done = f"{new} takes the place of {old}; `mica datastore show {datastore_id}` tells how far"
        session.finish(mica, operation, wait=wait, done=done)


for _step in (
    one_step(
        "unmount",
        "datastore",
        Mica.unmount_datastore,
        done="datastore {id} is unmounted",
        text="Unmount a datastore; it stays known, and unmounted over restarts.",
    ),
    one_step(
        "grow",
        "datastore",
        Mica.grow_datastore,
        done="datastore {id} has grown",
        text="Take the space that a datastore's disks have gained.",
    ),
    one_step(
        "delete",
        "datastore",
        Mica.delete_datastore,
        done="datastore {id} is forgotten",
        text="Unmount and forget a datastore; its data stay on the disk.",
    ),
):
    datastore_group.add_command(_step)


def _disk_spec(
    disks: tuple[str, ...], spares: tuple[str, ...], level: str | None, filesystem: Filesystem
) -> DatastoreSpec:
    if level is not None:
        return DatastoreSpec(
            kind=DatastoreKind.RAID,
            disks=disks,
            spares=spares,
            raid_level=RaidLevel(level),
            filesystem=filesystem,
        )
    if len(disks) > 1:
        return DatastoreSpec(kind=DatastoreKind.LVM, disks=disks, filesystem=filesystem)
    return DatastoreSpec(kind=DatastoreKind.LOCAL, disk=disks[0], filesystem=filesystem)


def _filesystem_of(status: DatastoreStatus) -> str | None:
    return f"NFS {status.nfs_version}" if status.nfs_version else status.filesystem


def _nfs_spec(
    place: str, version: str | None, port: int | None, mount_port: int | None
) -> DatastoreSpec:
    server, colon, export = place.partition(":/")
    if not colon:
        raise click.UsageError("--nfs is SERVER:/EXPORT")
    nfs = NfsSpec(
        server=server.strip("[]"),
        export=f"/{export}",
        version=NfsVersion(version) if version else None,
        port=port,
        mount_port=mount_port,
    )
    return DatastoreSpec(kind=DatastoreKind.NFS, nfs=nfs)


def _member(member: DatastoreMember) -> str:
    return f"{member.disk} {member.state}" + (f" ({member.device})" if member.device else "")


def _raid_lines(raid: RaidStatus) -> str:
    missing = f", {raid.missing_disks} disks missing" if raid.missing_disks else ""
    return f"{raid.level} {_raid_text(raid)}{missing}"


def _place(datastore: Datastore) -> str | None:
    spec = datastore.spec
    if spec.nfs is not None:
        return f"{spec.nfs.server}:{spec.nfs.export}"
    return spec.disk or spec.path or ", ".join(spec.disks)


def _raid_text(raid: RaidStatus) -> str:
    if raid.progress_percent is None:
        return raid.state.value
    left = f", {raid.remaining_s} s left" if raid.remaining_s is not None else ""
    return f"{raid.state.value} {raid.progress_percent} %{left}"


COMMANDS = (datastore_group,)
