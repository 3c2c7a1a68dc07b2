"""`mica volume export`: a volume as a file of one's own."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import BinaryIO

import click

from remote_api.client.cli import output
from remote_api.client.cli.common import Session, pass_session, say
from remote_api.client.cli.parameters import NAME
from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from vmkernel.model import ImageCapture, ImageFormat

__all__ = ["export_volume"]


@click.command("export")
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
