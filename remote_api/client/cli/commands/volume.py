"""The `mica volume` commands."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from remote_api.client.cli import output
from remote_api.client.cli.parameters import NAME, SIZE
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    say,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from vmkernel.model import (
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

_CHECK: tuple[tuple[str, Callable[[VolumeCheck], object]], ...] = (
    ("checked", lambda c: c.checked_at),
    ("corruptions", lambda c: c.corruptions),
    ("leaks", lambda c: c.leaks),
    ("corruptions mended", lambda c: c.corruptions_fixed),
    ("leaks mended", lambda c: c.leaks_fixed),
    ("stray snapshots", lambda c: c.snapshots),
    ("stray snapshots removed", lambda c: c.snapshots_removed),
)
"""What a check found, and what of it is left."""


@click.group("volume")
def volume_group() -> None:
    """Virtual disks."""


@volume_group.command("list")
@click.option("--datastore", type=NAME, help="Of this datastore only.")
@pass_session
def list_volumes(session: Session, datastore: str | None) -> None:
    """List volumes."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.volumes(datastore),
            (
                ("ID", lambda v: v.id),
                ("SIZE", lambda v: bytes_text(v.spec.size_bytes)),
                ("USED", lambda v: bytes_text(v.status.allocated_bytes)),
                ("FORMAT", lambda v: v.spec.format),
                ("DATASTORE", lambda v: v.spec.datastore),
                ("VM", lambda v: v.status.attached_to),
                ("BASE", lambda v: v.status.backing),
                ("REASON", lambda v: v.status.reason),
            ),
        )


@volume_group.command("show")
@click.argument("volume_id", type=NAME)
@pass_session
def show_volume(session: Session, volume_id: str) -> None:
    """Show a volume, what it was made of and who has it."""
    with session.mica() as mica:
        show_object(
            session,
            mica.volume(volume_id),
            (
                ("id", lambda v: v.id),
                ("size", lambda v: bytes_text(v.spec.size_bytes)),
                ("used", lambda v: bytes_text(v.status.allocated_bytes)),
                ("format", lambda v: f"{v.spec.format}, {v.spec.allocation}"),
                ("datastore", lambda v: v.spec.datastore),
                ("made of", lambda v: v.spec.source_image or v.spec.source_volume),
                ("vm", lambda v: v.status.attached_to),
                ("deleted if unused", _expiry),
                ("reason", lambda v: v.status.reason),
                ("base", lambda v: v.status.backing),
                ("linked to it", lambda v: v.status.children),
                ("shared", lambda v: v.status.shared_bytes and bytes_text(v.status.shared_bytes)),
                ("last check", lambda v: v.status.last_check and _check_text(v.status.last_check)),
                ("created", lambda v: v.created_at),
                ("revision", lambda v: v.revision),
            ),
        )


def _expiry(volume: Volume) -> str | None:
    if volume.spec.delete_unless_used_s is None:
        return None
    return f"by {volume.status.expires_at} ({volume.spec.delete_unless_used_s} s without use)"


@volume_group.command("create")
@click.argument("volume_id", type=NAME)
@click.option("--datastore", type=NAME, required=True)
@click.option("--size", type=SIZE, required=True)
@click.option(
    "--format",
    "volume_format",
    type=click.Choice([f.value for f in VolumeFormat]),
    default=VolumeFormat.QCOW2.value,
    show_default=True,
)
@click.option("--thick", is_flag=True, help="Take all its space at once.")
@click.option("--image", type=NAME, help="Fill it from this image.")
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
    """Make a volume."""
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
@click.argument("volume_id", type=NAME)
@click.argument("new_id", type=NAME)
@click.option("--datastore", type=NAME, help="Datastore of the copy (default: the volume's).")
@wait_option
@pass_session
def clone_volume(
    session: Session, volume_id: str, new_id: str, datastore: str | None, wait: bool
) -> None:
    """Make NEW_ID a copy of a volume that no running VM has."""
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
@click.argument("volume_id", type=NAME)
@click.option("--datastore", type=NAME, help="Datastore to move it to.")
@click.option("--format", "volume_format", type=click.Choice([f.value for f in VolumeFormat]))
@click.option("--allocation", type=click.Choice([a.value for a in Allocation]))
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
    """Move or convert a volume, also while its virtual machine runs."""
    if not (datastore or volume_format or allocation):
        raise click.UsageError("say what shall change: --datastore, --format or --allocation")
    with session.mica() as mica:
        operation = mica.move_volume(
            volume_id,
            datastore=datastore,
            volume_format=VolumeFormat(volume_format) if volume_format else None,
            allocation=Allocation(allocation) if allocation else None,
        )
        session.finish(mica, operation, wait=wait, done=f"volume {volume_id} is moved")


@volume_group.command("flatten")
@click.argument("volume_id", type=NAME)
@wait_option
@pass_session
def flatten_volume(session: Session, volume_id: str, wait: bool) -> None:
    """Make a linked volume whole, also while its virtual machine runs: it takes all its space,
    and no longer needs the one that it stands on."""
    with session.mica() as mica:
        operation = mica.flatten_volume(volume_id)
        session.finish(mica, operation, wait=wait, done=f"volume {volume_id} is whole")


@volume_group.command("check")
@click.argument("volume_id", type=NAME)
@click.option(
    "--repair",
    type=click.Choice([r.value for r in CheckRepair]),
    default=CheckRepair.NONE.value,
    show_default=True,
    help="`leaks` mends what is only wasted; `all` may lose what is corrupt.",
)
@pass_session
def check_volume(session: Session, volume_id: str, repair: str) -> None:
    """Check the file of a volume that no running virtual machine has."""
    with session.mica() as mica:
        mica.wait(mica.check_volume(volume_id, repair=CheckRepair(repair)))
        show_object(
            session,
            mica.volume(volume_id),
            [(title, partial(_of_check, of)) for title, of in _CHECK],
        )


@volume_group.command("resize")
@click.argument("volume_id", type=NAME)
@click.argument("size", type=SIZE)
@click.option("--allow-shrink", is_flag=True, help="Cut off what lies behind the new size.")
@wait_option
@pass_session
def resize_volume(
    session: Session, volume_id: str, size: int, allow_shrink: bool, wait: bool
) -> None:
    """Change a volume's size."""
    with session.mica() as mica:
        operation = mica.resize_volume(volume_id, size, allow_shrink=allow_shrink)
        session.finish(
            mica, operation, wait=wait, done=f"volume {volume_id} has {bytes_text(size)}"
        )


@volume_group.command("delete")
@click.argument("volume_id", type=NAME)
@pass_session
def delete_volume(session: Session, volume_id: str) -> None:
    """Delete a volume that no virtual machine names."""
    with session.mica() as mica:
        mica.delete_volume(volume_id)
    say(session, f"volume {volume_id} is deleted")


def _of_check(of: Callable[[VolumeCheck], object], volume: Volume) -> object:
    return volume.status.last_check and of(volume.status.last_check)


def _check_text(check: VolumeCheck) -> str:
    return ", ".join(f"{title} {of(check)}" for title, of in _CHECK)


@volume_group.command("export")
@click.argument("volume_id", type=NAME)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--format",
    "image_format",
    type=click.Choice([ImageFormat.QCOW2.value, ImageFormat.RAW.value]),
    help="As the volume has it where none is given.",
)
@click.option("--compress", is_flag=True, help="Compress the clusters (qcow2).")
@pass_session
def export_volume(
    session: Session, volume_id: str, file: Path, image_format: str | None, compress: bool
) -> None:
    """Download a volume that no running VM has into the new FILE (`-`: the output).

    Another format, compression, or a volume that lies on others is made as a temporary image on
    the volume's datastore first.
    """
    target = output.byte_target(file)
    with session.mica() as mica:
        kept = mica.volume(volume_id).spec.format.value
        wanted = image_format or (ImageFormat.QCOW2.value if compress else kept)
        if compress and wanted != ImageFormat.QCOW2.value:
            raise click.UsageError("only qcow2 can be compressed")
        if wanted != kept or compress or not _directly(session, mica, volume_id, target):
            _by_image(session, mica, volume_id, target, ImageFormat(wanted), compress)
    if target is file:
        say(session, f"{file} is complete")


def _directly(session: Session, mica: Mica, volume_id: str, file: Path | BinaryIO) -> bool:
    """False where the volume's file alone is not all of it."""
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
            session.finish(mica, operation, wait=True, done=f"{volume_id} is converted")
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
