"""The `mica volume` commands."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from remote_api.client.cli import output
from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.parameters import NAME, SIZE, choice_of
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.cli.verbs import (
    delete_command,
    list_command,
    new_name_argument,
    object_argument,
    show_command,
    step_command,
)
from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from vmkernel.model import (
    VOLUME_LISTING,
    Allocation,
    CheckRepair,
    ImageCapture,
    ImageFormat,
    Volume,
    VolumeCheck,
    VolumeFormat,
    VolumeSpec,
)

__all__ = ["COMMANDS"]

_volume = object_argument("volume")
_CHECK: tuple[tuple[str, Callable[[VolumeCheck], object]], ...] = (
    ("checked", lambda c: c.checked_at),
    ("corruptions", lambda c: c.corruptions),
    ("leaks", lambda c: c.leaks),
    ("corruptions repaired", lambda c: c.corruptions_fixed),
    ("leaks repaired", lambda c: c.leaks_fixed),
    ("stray snapshots", lambda c: c.snapshots),
    ("stray snapshots removed", lambda c: c.snapshots_removed),
)
"""What a check found and repaired."""


@click.group("volume")
def volume_group() -> None:
    """Manage volumes (virtual disks)."""


def _expiry(volume: Volume) -> str | None:
    if volume.spec.delete_unless_used_s is None:
        return None
    return f"by {volume.status.expires_at} ({volume.spec.delete_unless_used_s} s without use)"


_LINES: Columns = (
    ("id", lambda v: v.id),
    ("size", lambda v: bytes_text(v.spec.size_bytes)),
    ("used", lambda v: bytes_text(v.status.allocated_bytes)),
    ("format", lambda v: f"{v.spec.format}, {v.spec.allocation}"),
    ("datastore", lambda v: v.spec.datastore),
    ("created from", lambda v: v.spec.source_image or v.spec.source_volume),
    ("vm", lambda v: v.status.attached_to),
    ("deleted if unused", _expiry),
    ("reason", lambda v: v.status.reason),
    ("base", lambda v: v.status.backing),
    ("linked clones", lambda v: v.status.children),
    ("shared", lambda v: v.status.shared_bytes and bytes_text(v.status.shared_bytes)),
    ("last check", lambda v: v.status.last_check and _check_text(v.status.last_check)),
    ("created", lambda v: v.created_at),
    ("revision", lambda v: v.revision),
)
volume_group.add_command(
    list_command(
        lambda mica, **given: mica.volumes(**given_query(given)),
        listed(
            _LINES,
            *("id", "size", "used", ("format", lambda v: v.spec.format)),
            *("datastore", "vm", "base", "reason"),
        ),
        text="List volumes.",
        parameters=list_options(VOLUME_LISTING),
        lines=_LINES,
    )
)
volume_group.add_command(
    show_command(
        lambda mica, volume_id: mica.volume(volume_id),
        _LINES,
        text="Show a volume: its size, source, VM and last check.",
        parameters=(_volume,),
    )
)
volume_group.add_command(
    delete_command(
        "volume",
        lambda mica, volume_id: mica.delete_volume(volume_id),
        text="Delete volumes that are not attached to a VM, and their data.",
        kept="The data is lost.",
    )
)
volume_group.add_command(
    step_command(
        "flatten",
        "volume",
        Mica.flatten_volume,
        done="volume {id} flattened",
        text="Make a linked clone independent of its template.\n\nThe data that it"
        " shares with other"
        " volumes is copied into it. Its VM may be running.",
    )
)


@volume_group.command("create")
@_volume
@click.option(
    "--datastore", type=NAME, metavar="DATASTORE", required=True, help="Datastore of the volume."
)
@click.option("--size", type=SIZE, required=True, help="Size of the disk, such as 20G.")
@click.option(
    "--format",
    "volume_format",
    type=choice_of(VolumeFormat),
    default=VolumeFormat.QCOW2.value,
    show_default=True,
    help="Format of the volume's file.",
)
@click.option("--thick", is_flag=True, help="Reserve all space now (default: as it is used).")
@click.option("--image", type=NAME, metavar="IMAGE", help="Fill the volume from this image.")
@wait_option
@pass_session
def create_volume(
    session: Session,
    volume_id: str,
    datastore: str,
    size: int,
    volume_format: str,
    thick: bool,
    image: str | None,
    wait: bool,
) -> None:
    """Create a volume, empty or from an image."""
    spec = VolumeSpec(
        datastore=datastore,
        size_bytes=size,
        format=VolumeFormat(volume_format),
        allocation=Allocation.THICK if thick else Allocation.THIN,
        source_image=image,
    )
    with session.mica() as mica:
        operation = mica.create_volume(volume_id, spec)
        session.finish(mica, operation, wait=wait, done=f"volume {volume_id} is ready")


@volume_group.command("clone")
@_volume
@new_name_argument
@click.option(
    "--datastore",
    type=NAME,
    metavar="DATASTORE",
    help="Datastore of the copy (default: the source's).",
)
@wait_option
@pass_session
def clone_volume(
    session: Session, volume_id: str, new_id: str, datastore: str | None, wait: bool
) -> None:
    """Copy a volume that no running VM uses."""
    with session.mica() as mica:
        source = mica.volume(volume_id).spec
        spec = VolumeSpec(
            datastore=datastore or source.datastore,
            size_bytes=source.size_bytes,
            format=source.format,
            allocation=source.allocation,
            source_volume=volume_id,
        )
        operation = mica.create_volume(new_id, spec)
        session.finish(mica, operation, wait=wait, done=f"volume {new_id} is ready")


@volume_group.command("move")
@_volume
@click.option(
    "--datastore", type=NAME, metavar="DATASTORE", help="Move the volume to this datastore."
)
@click.option(
    "--format",
    "volume_format",
    type=choice_of(VolumeFormat),
    help="Convert the volume to this format.",
)
@click.option(
    "--allocation",
    type=choice_of(Allocation),
    help="Reserve all space (thick), or as it is used (thin).",
)
@wait_option
@pass_session
def move_volume(
    session: Session,
    volume_id: str,
    datastore: str | None,
    volume_format: str | None,
    allocation: str | None,
    wait: bool,
) -> None:
    """Move or convert a volume. Its VM may be running."""
    if not (datastore or volume_format or allocation):
        raise click.UsageError("nothing to change: give --datastore, --format or --allocation")
    with session.mica() as mica:
        operation = mica.move_volume(
            volume_id,
            datastore=datastore,
            volume_format=VolumeFormat(volume_format) if volume_format else None,
            allocation=Allocation(allocation) if allocation else None,
        )
        session.finish(mica, operation, wait=wait, done=f"volume {volume_id} moved")


@volume_group.command("check")
@_volume
@click.option(
    "--repair",
    type=choice_of(CheckRepair),
    default=CheckRepair.NONE.value,
    show_default=True,
    help="What to repair: `leaks` frees wasted space; `all` also repairs corruption and may lose"
    " data.",
)
@pass_session
def check_volume(session: Session, volume_id: str, repair: str) -> None:
    """Check a volume's file, and repair it if asked to.

    No running VM may use the volume.
    """
    with session.mica() as mica:
        mica.wait(mica.check_volume(volume_id, repair=CheckRepair(repair)))
        show_object(
            session,
            mica.volume(volume_id),
            [(title, partial(_of_check, of)) for title, of in _CHECK],
        )


@volume_group.command("resize")
@_volume
@click.argument("size", type=SIZE)
@click.option("--allow-shrink", is_flag=True, help="Allow a smaller size; data beyond it is lost.")
@wait_option
@pass_session
def resize_volume(
    session: Session, volume_id: str, size: int, allow_shrink: bool, wait: bool
) -> None:
    """Change the size of a volume. Its VM may be running if the volume grows."""
    with session.mica() as mica:
        operation = mica.resize_volume(volume_id, size, allow_shrink=allow_shrink)
        session.finish(
            mica, operation, wait=wait, done=f"volume {volume_id} resized to {bytes_text(size)}"
        )


def _of_check(of: Callable[[VolumeCheck], object], volume: Volume) -> object:
    return volume.status.last_check and of(volume.status.last_check)


def _check_text(check: VolumeCheck) -> str:
    return ", ".join(f"{title} {of(check)}" for title, of in _CHECK)


@volume_group.command("export")
@_volume
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--format",
    "image_format",
    type=choice_of((ImageFormat.QCOW2, ImageFormat.RAW)),
    help="Format of the file (default: the volume's).",
)
@click.option("--compress", is_flag=True, help="Compress the file (qcow2 only).")
@pass_session
def export_volume(
    session: Session, volume_id: str, file: Path, image_format: str | None, compress: bool
) -> None:
    """Download a volume to the new FILE (`-`: standard output).

    No running VM may use the volume. If the format changes, or the volume is compressed or has
    a backing chain, a temporary image is created on the volume's datastore first.
    """
    target = output.byte_target(file)
    with session.mica() as mica:
        kept = mica.volume(volume_id).spec.format.value
        wanted = image_format or (ImageFormat.QCOW2.value if compress else kept)
        if compress and wanted != ImageFormat.QCOW2.value:
            raise click.UsageError("--compress is only possible with --format qcow2")
        if wanted != kept or compress or not _directly(session, mica, volume_id, target):
            _by_image(session, mica, volume_id, target, ImageFormat(wanted), compress)
    if target is file:
        say(session, f"volume {volume_id} downloaded to {file}")


def _directly(session: Session, mica: Mica, volume_id: str, file: Path | BinaryIO) -> bool:
    """False if the volume has a backing chain, so that its file alone is not enough."""
    try:
        size = mica.volume_size(volume_id)
    except RefusedError as error:
        if error.code != "conflict":
            raise
        return False
    with session.byte_bar(f"downloading {volume_id}", size) as on_bytes:
        mica.download_volume(volume_id, file, on_bytes=on_bytes)
    return True


def _by_image(
    session: Session,
    mica: Mica,
    volume_id: str,
    file: Path | BinaryIO,
    wanted: ImageFormat,
    compress: bool,
) -> None:
    image_id = f"export-{secrets.token_hex(6)}"
    capture = ImageCapture(volume=volume_id, format=wanted, compress=compress)
    operation = mica.capture_image(image_id, capture)
    try:
        if not isinstance(file, Path):
            mica.wait(operation)
        else:
            session.finish(mica, operation, wait=True, done=f"volume {volume_id} converted")
    except KeyboardInterrupt:
        mica.cancel(operation.id)
        raise
    try:
        size = mica.image(image_id).spec.size_bytes
        with session.byte_bar(f"downloading {volume_id}", size) as on_bytes:
            mica.download_image(image_id, file, on_bytes=on_bytes)
    finally:
        mica.delete_image(image_id)


COMMANDS = (volume_group,)
