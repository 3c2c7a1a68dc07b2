"""The `mica image` commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

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
    show_rows,
    wait_option,
)
from remote_api.client.cli.verbs import (
    delete_command,
    layout_options,
    list_command,
    object_argument,
    show_command,
)
from remote_api.client.sdk import file_sha256
from vmkernel.model import (
    IMAGE_LISTING,
    Compression,
    Image,
    ImageCapture,
    ImageFormat,
    ImagePull,
    Operation,
    SourceFormat,
)

__all__ = ["COMMANDS"]

_RESUMABLE_FROM_BYTES = 64 << 20
_RAW_SUFFIX = ".raw"
_image = object_argument("image")
_format_option = click.option(
    "--format",
    "image_format",
    type=choice_of(SourceFormat),
    help="Format of the image, once unpacked (default: detected; needed for a raw disk without"
    " partitions).",
)
_compression_option = click.option(
    "--compression",
    type=choice_of(Compression),
    help="Compression of the file (default: detected).",
)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


_UPLOAD_HELP = f"""Upload FILE as a new image.

Formats: {_listed(f.value for f in SourceFormat)}, also compressed with
{_listed(c.value for c in Compression if c is not Compression.NONE)}. To resume an upload that was
interrupted, run the same command again.
"""


@click.group("image")
def image_group() -> None:
    """Manage images: ISO files, disk templates, kernels."""


_LINES: Columns = (
    ("id", lambda i: i.id),
    ("format", lambda i: i.spec.format),
    ("size", lambda i: bytes_text(i.spec.size_bytes)),
    ("datastore", lambda i: i.spec.datastore),
    ("used by", lambda i: i.status.used_by),
)
image_group.add_command(
    list_command(
        lambda mica, **given: mica.images(**given_query(given)),
        listed(_LINES, "id", "format", "size", "datastore", "used by"),
        text="List images.",
        parameters=list_options(IMAGE_LISTING),
        lines=_LINES,
    )
)
image_group.add_command(
    show_command(
        lambda mica, image_id: mica.image(image_id),
        (),
        text="Show an image and its origin, as JSON.",
        parameters=(_image,),
    )
)
image_group.add_command(
    delete_command(
        "image",
        lambda mica, image_id: mica.delete_image(image_id),
        text="Delete images that no VM uses.",
        kept="Volumes that were made from it are kept.",
    )
)


@image_group.command("upload", help=_UPLOAD_HELP)
@_image
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--datastore", type=NAME, metavar="DATASTORE", required=True, help="Datastore of the image."
)
@_format_option
@_compression_option
@click.option("--sha256", metavar="DIGEST", help="Expected SHA-256 (default: that of FILE).")
@click.option(
    "--resumable/--one-shot",
    default=None,
    help="Upload in parts that can be resumed (default: for files of 64 MiB or more).",
)
@wait_option
@pass_session
def upload_image(
    session: Session,
    image_id: str,
    file: Path,
    datastore: str,
    image_format: str | None,
    compression: str | None,
    sha256: str | None,
    resumable: bool | None,
    wait: bool,
) -> None:
    """The help is _UPLOAD_HELP."""
    if sha256 is not None:
        sha256 = sha256.lower()
    if image_format is None and file.suffix.lower() == _RAW_SUFFIX:
        image_format = SourceFormat.RAW.value
    size = file.stat().st_size
    if sha256 is None:
        with session.byte_bar(f"reading {file.name}", size) as on_bytes:
            sha256 = file_sha256(file, on_bytes)
    if resumable is None:
        resumable = size >= _RESUMABLE_FROM_BYTES
    packed = None if compression is None else Compression(compression)
    outcome: Image | Operation
    with session.mica() as mica:
        with session.byte_bar(f"uploading {image_id}", size) as on_bytes:
            if resumable:
                try:
                    outcome = mica.resumable_upload(
                        image_id,
                        file,
                        datastore=datastore,
                        image_format=image_format,
                        compression=packed,
                        sha256=sha256,
                        on_offset=None if on_bytes is None else _steps(on_bytes),
                    )
                except KeyboardInterrupt:
                    if not session.quiet:
                        output.print_line(
                            "mica: run the same command again to resume the upload", err=True
                        )
                    raise
            else:
                outcome = mica.upload_image(
                    image_id,
                    file,
                    datastore=datastore,
                    image_format=image_format,
                    compression=packed,
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


@image_group.command("pull")
@_image
@click.argument("url")
@click.option("--sha256", required=True, metavar="DIGEST", help="SHA-256 that the file must have.")
@click.option(
    "--datastore", type=NAME, metavar="DATASTORE", required=True, help="Datastore of the image."
)
@_format_option
@_compression_option
@click.option("--max-size", type=SIZE, help="Refuse a file that is larger.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of CA certificates (PEM) to trust instead of the public authorities.",
)
@wait_option
@pass_session
def pull_image(
    session: Session,
    image_id: str,
    url: str,
    sha256: str,
    datastore: str,
    image_format: str | None,
    compression: str | None,
    max_size: int | None,
    ca: Path | None,
    wait: bool,
) -> None:
    """Let the host download a new image from URL (http or https)."""
    pull = ImagePull(
        datastore=datastore,
        url=url,
        sha256=sha256.lower(),
        format=None if image_format is None else SourceFormat(image_format),
        compression=None if compression is None else Compression(compression),
        max_bytes=max_size,
        ca_pem=None if ca is None else ca.read_text(encoding="ascii", errors="replace"),
    )
    with session.mica() as mica:
        operation = mica.pull_image(image_id, pull)
        session.finish(mica, operation, wait=wait, done=f"image {image_id} is ready")


@image_group.command("capture")
@_image
@object_argument("volume")
@click.option(
    "--datastore",
    type=NAME,
    metavar="DATASTORE",
    help="Datastore of the image (default: the volume's).",
)
@click.option(
    "--format",
    "image_format",
    type=choice_of((ImageFormat.QCOW2, ImageFormat.RAW)),
    default=ImageFormat.QCOW2.value,
    show_default=True,
    help="Format of the image.",
)
@click.option("--compress", is_flag=True, help="Compress the image (qcow2 only).")
@wait_option
@pass_session
def capture_image(
    session: Session,
    image_id: str,
    volume_id: str,
    datastore: str | None,
    image_format: str,
    compress: bool,
    wait: bool,
) -> None:
    """Create an image from a volume that no running VM uses."""
    capture = ImageCapture(
        volume=volume_id, datastore=datastore, format=ImageFormat(image_format), compress=compress
    )
    with session.mica() as mica:
        operation = mica.capture_image(image_id, capture)
        session.finish(mica, operation, wait=wait, done=f"image {image_id} is ready")


@image_group.command("download")
@_image
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@pass_session
def download_image(session: Session, image_id: str, file: Path) -> None:
    """Download an image to the new FILE (`-`: standard output).

    Its digest is verified.
    """
    target = output.byte_target(file)
    with session.mica() as mica:
        size = mica.image(image_id).spec.size_bytes
        with session.byte_bar(f"downloading {image_id}", size) as on_bytes:
            mica.download_image(image_id, target, on_bytes=on_bytes)
    if target is file:
        say(session, f"image {image_id} downloaded to {file}")


@image_group.command("uploads")
@layout_options
@click.option("--delete", "delete_id", metavar="UPLOAD", help="Delete this upload instead.")
@pass_session
def list_uploads(session: Session, delete_id: str | None) -> None:
    """List unfinished uploads, which can be resumed."""
    with session.mica() as mica:
        if delete_id is not None:
            mica.delete_upload(delete_id)
            say(session, f"upload {delete_id} deleted")
            return
        show_rows(
            session,
            mica.uploads(),
            (
                ("ID", lambda u: u.id),
                ("IMAGE", lambda u: u.spec.image),
                ("RECEIVED", lambda u: bytes_text(u.status.offset_bytes)),
                ("SIZE", lambda u: bytes_text(u.spec.size_bytes)),
                ("STATE", lambda u: u.status.state),
                ("EXPIRES", lambda u: u.status.expires_at),
            ),
        )


def _steps(on_bytes: Callable[[int], None]) -> Callable[[int], None]:
    """Turns offsets into the number of bytes since the one before."""
    before = 0

    def told(offset: int) -> None:
        nonlocal before
        on_bytes(offset - before)
        before = offset

    return told


COMMANDS = (image_group,)
