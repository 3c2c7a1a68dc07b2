"""The `mica datastore` commands."""

from __future__ import annotations

from typing import Any

import click

from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.parameters import choice_of
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    say,
    wait_option,
)
from remote_api.client.cli.verbs import (
    list_command,
    new_name_argument,
    object_argument,
    show_command,
    step_command,
)
from remote_api.client.sdk import Mica
from vmkernel.model import (
    DATASTORE_LISTING,
    KIND_FIELDS,
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
    kind_with,
)

__all__ = ["COMMANDS"]


_datastore = object_argument("datastore")


@click.group("datastore")
def datastore_group() -> None:
    """Manage datastores, which hold VMs, volumes and images."""


_filesystem = click.option(
    "--filesystem",
    type=choice_of(Filesystem),
    default=Filesystem.XFS.value,
    show_default=True,
    help="File system to create on disks.",
)
_wipe = click.option(
    "--wipe",
    metavar="DISK",
    multiple=True,
    help="Confirm that all data on this disk is destroyed; needed if it is not blank. Repeatable.",
)
_disks = click.option(
    "--disk",
    "disks",
    metavar="DISK",
    multiple=True,
    help="Disk of the host; see `mica disk list`. Repeatable.",
)
_level = click.option(
    "--raid",
    "level",
    type=choice_of(RaidLevel),
    help="Mirror the disks (default: several disks are concatenated, without redundancy).",
)
_nfs = click.option("--nfs", metavar="SERVER:/EXPORT", help="Export of an NFS server.")
_nfs_version = click.option(
    "--nfs-version",
    type=choice_of(NfsVersion),
    help="NFS version to use (default: the newest that the server supports).",
)
_path = click.option(
    "--path", metavar="DIRECTORY", help="Absolute path of a directory (hosted mode only)."
)
_take_over = click.option(
    "--take-over",
    is_flag=True,
    help="Take the datastore even if another host is using it; that host loses access.",
)


@datastore_group.command("create")
@_datastore
@_disks
@_level
@click.option(
    "--spare", "spares", metavar="DISK", multiple=True, help="Spare disk for --raid. Repeatable."
)
@_nfs
@_nfs_version
@click.option(
    "--nfs-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Port of the NFS server (default: 2049).",
)
@click.option(
    "--nfs-mount-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Port of the mount service (NFS version 3 only).",
)
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
    """Create a datastore.

    It is on disks, on an NFS server or (in hosted mode) in a directory. If there is a datastore
    already, it is adopted with its contents.
    """
    if spares and level is None:
        raise click.UsageError("--spare is only possible with --raid")
    spec = _spec(
        disks,
        filesystem=Filesystem(filesystem),
        raid_level=level and RaidLevel(level),
        spares=spares,
        nfs=_nfs_spec(nfs, nfs_version, nfs_port, nfs_mount_port),
        path=path,
    )
    with session.mica() as mica:
        operation = mica.create_datastore(datastore_id, spec, wipe_serials=wipe)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is ready")


@datastore_group.command("adopt")
@_datastore
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
    """Adopt an existing datastore with its contents.

    If it was used by another host, that host must have released it or have been silent for half a
    minute; otherwise give --take-over.
    """
    with session.mica() as mica:
        kind = None
        if len(disks) == 1:
            kind = next((disk.adoptable for disk in mica.disks() if disk.id == disks[0]), None)
        spec = _spec(disks, kind, nfs=_nfs_spec(nfs, nfs_version, None, None), path=path)
        operation = mica.create_datastore(datastore_id, spec, adopt=True, take_over=take_over)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} is ready")


@datastore_group.command("set")
@_datastore
@click.option(
    "--warning",
    metavar="PERCENT",
    type=click.IntRange(1, 100),
    help="Report a warning if this much space is used.",
)
@click.option(
    "--critical",
    metavar="PERCENT",
    type=click.IntRange(1, 100),
    help="Report an error if this much space is used.",
)
@pass_session
def set_thresholds(
    session: Session, datastore_id: str, warning: int | None, critical: int | None
) -> None:
    """Set the space usage thresholds of a datastore."""
    if warning is None and critical is None:
        raise click.UsageError("nothing to change: give --warning, --critical or both")
    with session.mica() as mica:
        mica.set_thresholds(datastore_id, warning_percent=warning, critical_percent=critical)
    say(session, f"thresholds of datastore {datastore_id} set")


@datastore_group.command("rename")
@_datastore
@new_name_argument
@wait_option
@pass_session
def rename_datastore(session: Session, datastore_id: str, new_id: str, wait: bool) -> None:
    """Rename a datastore on this host. Its VMs are updated."""
    with session.mica() as mica:
        operation = mica.rename_datastore(datastore_id, new_id)
        session.finish(
            mica, operation, wait=wait, done=f"datastore {datastore_id} renamed to {new_id}"
        )


@datastore_group.command("mount")
@_datastore
@_take_over
@wait_option
@pass_session
def mount_datastore(session: Session, datastore_id: str, take_over: bool, wait: bool) -> None:
    """Mount a datastore that is not mounted."""
    with session.mica() as mica:
        operation = mica.mount_datastore(datastore_id, take_over=take_over)
        session.finish(mica, operation, wait=wait, done=f"datastore {datastore_id} mounted")


@datastore_group.command("add-disk")
@_datastore
@click.argument("disk", metavar="DISK")
@_wipe
@wait_option
@pass_session
def add_disk(
    session: Session, datastore_id: str, disk: str, wipe: tuple[str, ...], wait: bool
) -> None:
    """Add a disk to a datastore.

    A RAID gets it as a spare, a datastore of concatenated disks as more space.
    """
    with session.mica() as mica:
        operation = mica.add_datastore_disk(datastore_id, disk, wipe_serials=wipe)
        session.finish(
            mica, operation, wait=wait, done=f"disk {disk} added to datastore {datastore_id}"
        )


@datastore_group.command("replace-disk")
@_datastore
@click.argument("old", metavar="OLD_DISK")
@click.argument("new", metavar="NEW_DISK")
@_wipe
@wait_option
@pass_session
def replace_disk(
    session: Session, datastore_id: str, old: str, new: str, wipe: tuple[str, ...], wait: bool
) -> None:
    """Replace a disk of a RAID datastore. The rebuild runs in the background."""
    with session.mica() as mica:
        operation = mica.replace_datastore_disk(datastore_id, old, new, wipe_serials=wipe)
        done = (
            f"disk {old} replaced by {new}; `mica datastore show {datastore_id}` shows the rebuild"
        )
        session.finish(mica, operation, wait=wait, done=done)


for _step in (
    step_command(
        "unmount",
        "datastore",
        Mica.unmount_datastore,
        done="datastore {id} unmounted",
        text="Unmount a datastore. It stays unmounted, also after a restart of the host.",
    ),
    step_command(
        "grow",
        "datastore",
        Mica.grow_datastore,
        done="datastore {id} grown",
        text="Grow a datastore to the size of its disks.",
    ),
    step_command(
        "delete",
        "datastore",
        Mica.delete_datastore,
        done="datastore {id} removed from this host; its data is kept",
        text="Remove datastores and their VMs from this host. The data is kept and can be adopted.",
        ask="Remove datastore {names} and its VMs from this host? The data is kept: `mica datastore"
        " adopt` brings both back.",
    ),
):
    datastore_group.add_command(_step)


def _spec(disks: tuple[str, ...], kind: DatastoreKind | None = None, **given: Any) -> DatastoreSpec:
    """What the options ask for; without `kind`, of the kind that has just these fields."""
    if sum(map(bool, (disks, given["nfs"], given["path"]))) != 1:
        raise click.UsageError("give one of --disk, --nfs and --path")
    filesystem = given.pop("filesystem", None)
    fields = {name: value for name, value in given.items() if value}
    if kind is None:
        one = kind_with({*fields, "disk"}) if len(disks) == 1 else None
        kind = one or kind_with({*fields, "disks"} if disks else fields.keys())
    if kind is None:
        raise click.UsageError("--raid and --spare are only possible with --disk")
    takes = KIND_FIELDS[kind]
    if disks:
        fields |= {"disk": disks[0]} if "disk" in takes else {"disks": disks}
    if filesystem is not None and "filesystem" in takes:
        fields["filesystem"] = filesystem
    return DatastoreSpec(kind=kind, **fields)


def _filesystem_of(status: DatastoreStatus) -> str | None:
    return f"NFS {status.nfs_version}" if status.nfs_version else status.filesystem


def _nfs_spec(
    place: str | None, version: str | None, port: int | None, mount_port: int | None
) -> NfsSpec | None:
    if place is None:
        return None
    server, colon, export = place.partition(":/")
    if not colon:
        raise click.UsageError(f"--nfs {place}: use SERVER:/EXPORT")
    return NfsSpec(
        server=server.strip("[]"),
        export=f"/{export}",
        version=NfsVersion(version) if version else None,
        port=port,
        mount_port=mount_port,
    )


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


_LINES: Columns = (
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
    ("thresholds", lambda d: f"{d.spec.warning_percent} %, {d.spec.critical_percent} %"),
    ("raid", lambda d: d.status.raid and _raid_lines(d.status.raid)),
    ("disks", lambda d: [_member(m) for m in d.status.members]),
    ("spares", lambda d: d.spec.spares),
    ("device", lambda d: d.status.device),
    ("created", lambda d: d.created_at),
    ("revision", lambda d: d.revision),
)
_COLUMNS = listed(
    _LINES,
    *("id", "kind", "state", ("free", lambda d: bytes_text(d.status.free_bytes))),
    *("capacity", "provisioned", "on"),
    *(("raid", lambda d: d.status.raid and _raid_text(d.status.raid)), "reason"),
)
datastore_group.add_command(
    list_command(
        lambda mica, **given: mica.datastores(**given_query(given)),
        _COLUMNS,
        text="List datastores.",
        lines=_LINES,
        parameters=list_options(DATASTORE_LISTING),
    )
)
datastore_group.add_command(
    show_command(
        lambda mica, datastore_id: mica.datastore(datastore_id),
        _LINES,
        text="Show a datastore, its space, disks and RAID.",
        parameters=(_datastore,),
    )
)

COMMANDS = (datastore_group,)
