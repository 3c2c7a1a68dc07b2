"""The `mica image` commands."""

from __future__ import annotations

from pathlib import Path

import click

from remote_api.client.cli.common import (
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
    ImageFormat,
    Operation,
)

__all__ = ["image_group"]


_SUFFIXES = {".iso": ImageFormat.ISO, ".qcow2": ImageFormat.QCOW2, ".raw": ImageFormat.RAW}


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
