"""Datastores, images and volumes."""

from __future__ import annotations

from pathlib import Path

import click

from remote_api.client.cli.common import (
    SIZE,
    Session,
    bytes_text,
    pass_session,
    say,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.sdk import file_sha256
from remote_api.schema import (
    DatastoreKind,
    DatastoreSpec,
    Filesystem,
    ImageFormat,
    Operation,
    VolumeFormat,
    VolumeSpec,
)

__all__ = ["datastore_group", "image_group", "volume_group"]

_SUFFIXES = {".iso": ImageFormat.ISO, ".qcow2": ImageFormat.QCOW2, ".raw": ImageFormat.RAW}


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
@click.option("--disk", metavar="ID", help="A disk of the host; see `mica host disks`.")
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


@click.group("image")
def image_group() -> None:
    """ISO images, disk templates, kernels and initrds."""


@image_group.command("list")
@click.option("--datastore", help="Of this datastore only.")
@pass_session
def list_images(session: Session, datastore: str | None) -> None:
    """List images."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.images(datastore),
            (
                ("ID", lambda i: i.id),
                ("FORMAT", lambda i: i.spec.format),
                ("SIZE", lambda i: bytes_text(i.spec.size_bytes)),
                ("DATASTORE", lambda i: i.spec.datastore),
                ("USED BY", lambda i: i.status.used_by),
            ),
        )


@image_group.command("upload")
@click.argument("image_id")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--datastore", required=True, help="Where to keep it.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice([f.value for f in ImageFormat]),
    help="What it is; told by the file's suffix where it can be.",
)
@click.option("--sha256", help="Its known digest; computed from the file where none is given.")
@wait_option
@pass_session
def upload_image(
    session: Session,
    image_id: str,
    file: Path,
    datastore: str,
    image_format: str | None,
    sha256: str | None,
    wait: bool,
) -> None:
    """Upload FILE as a new image."""
    known = ImageFormat(image_format) if image_format else _SUFFIXES.get(file.suffix.lower())
    if known is None:
        raise click.UsageError(f"what is {file.name}? say it by --format")
    size = file.stat().st_size
    if sha256 is None:
        with session.byte_bar(f"reading {file.name}", size) as on_bytes:
            sha256 = file_sha256(file, on_bytes)
    with session.mica() as mica:
        with session.byte_bar(f"uploading {image_id}", size) as on_bytes:
            outcome = mica.upload_image(
                image_id,
                file,
                datastore=datastore,
                image_format=known,
                sha256=sha256,
                wait_s=60.0 if wait else 0.0,
                on_bytes=on_bytes,
            )
        if isinstance(outcome, Operation):
            session.finish(mica, outcome, wait=wait, done=f"image {image_id} is ready")
        elif session.json:
            show_object(session, outcome)
        else:
            say(session, f"image {image_id} is ready")


@image_group.command("delete")
@click.argument("image_id")
@pass_session
def delete_image(session: Session, image_id: str) -> None:
    """Delete an image that no virtual machine names."""
    with session.mica() as mica:
        mica.delete_image(image_id)
    say(session, f"image {image_id} is deleted")


@click.group("volume")
def volume_group() -> None:
    """Virtual disks."""


@volume_group.command("list")
@click.option("--datastore", help="Of this datastore only.")
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
                ("REASON", lambda v: v.status.reason),
            ),
        )


@volume_group.command("create")
@click.argument("volume_id")
@click.option("--datastore", required=True)
@click.option("--size", type=SIZE, required=True)
@click.option(
    "--format",
    "volume_format",
    type=click.Choice([f.value for f in VolumeFormat]),
    default=VolumeFormat.QCOW2.value,
    show_default=True,
)
@click.option("--image", help="Fill it from this image.")
@wait_option
@pass_session
def create_volume(
    session: Session,
    volume_id: str,
    datastore: str,
    size: int,
    volume_format: str,
    image: str | None,
    wait: bool,
) -> None:
    """Make a volume."""
    spec = VolumeSpec(
        datastore=datastore,
        size_bytes=size,
        format=VolumeFormat(volume_format),
        source_image=image,
    )
    with session.mica() as mica:
        operation = mica.create_volume(volume_id, spec)
        session.finish(mica, operation, wait=wait, done=f"volume {volume_id} is ready")


@volume_group.command("resize")
@click.argument("volume_id")
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
@click.argument("volume_id")
@pass_session
def delete_volume(session: Session, volume_id: str) -> None:
    """Delete a volume that no virtual machine names."""
    with session.mica() as mica:
        mica.delete_volume(volume_id)
    say(session, f"volume {volume_id} is deleted")
