"""tus 1.0 as it is written (https://tus.io/protocols/resumable-upload): versions, metadata, sums.

Pure; resources/uploads.py holds the routes.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec

from remote_api.http.exchange import Exchange
from remote_api.schema import ApiError, HttpCode
from remote_api.schema.violations import examined
from vmkernel.model import ErrorCode, FieldError, Upload, UploadChecksum, UploadSpec
from vmkernel.model.images import MAX_IMAGE_BYTES

__all__ = [
    "EXTENSIONS",
    "TUS_HEADERS",
    "checksum_of",
    "count_of",
    "expires_header",
    "require_version",
    "spec_of",
]

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration"
TUS_HEADERS = {"tus-resumable": VERSION}
ALGORITHMS = {"sha1": 20, "sha256": 32, "sha512": 64}
_KEY = re.compile(r"[!-+\--~]{1,64}\Z")
_COUNT = re.compile(r"[0-9]{1,16}\Z")
_KEYS = ("image", "datastore", "sha256", "format", "compression")


def require_version(exchange: Exchange[Any, Any]) -> None:
    """Raise ApiError (412) if the request uses another version."""
    given = exchange.header("Tus-Resumable")
    if given != VERSION:
        raise ApiError(
            HttpCode.PROTOCOL_VERSION,
            f"The request needs `Tus-Resumable: {VERSION}`"
            + ("." if given is None else f", not {given[:20]!r}."),
            headers={"tus-version": VERSION},
        )


def count_of(exchange: Exchange[Any, Any], name: str) -> int:
    """A header that is a number of bytes. Raises ApiError (422)."""
    given = exchange.header(name)
    if given is None or not _COUNT.match(given):
        raise ApiError(
            ErrorCode.INVALID,
            f"The request needs the header {name} with a number of bytes.",
            errors=(FieldError(pointer=name, detail="A number of bytes."),),
        )
    return int(given)


def spec_of(exchange: Exchange[Any, Any]) -> UploadSpec:
    """What an upload becomes, by `Upload-Length` and `Upload-Metadata`.

    Keys: `image` and `datastore` are needed, `sha256`, `format` and `compression` are optional;
    others (`filename`, `filetype`) are ignored. Raises ApiError: 422, 413.
    """
    if exchange.header("Upload-Defer-Length") is not None:
        raise ApiError.field(
            "Upload-Defer-Length", "The length must be known when the upload is created."
        )
    size = count_of(exchange, "Upload-Length")
    if size > MAX_IMAGE_BYTES:
        raise ApiError(HttpCode.TOO_LARGE, f"An upload has at most {MAX_IMAGE_BYTES} bytes.")
    values = _metadata(exchange.header("Upload-Metadata") or "")
    known: dict[str, object] = {name: values[name] for name in _KEYS if name in values}
    taken, wrong = examined({**known, "size_bytes": size}, UploadSpec)
    if wrong:
        raise ApiError.fields([_in_metadata(each) for each in wrong])
    return msgspec.convert(taken, UploadSpec)


def checksum_of(exchange: Exchange[Any, Any]) -> UploadChecksum | None:
    """The digest of the body that follows. Raises ApiError (400) for one that can't be used."""
    given = exchange.header("Upload-Checksum")
    if given is None:
        return None
    algorithm, _, encoded = given.partition(" ")
    length = ALGORITHMS.get(algorithm)
    if length is None:
        raise _refused("Upload-Checksum", f"One of {', '.join(ALGORITHMS)}.")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise _refused("Upload-Checksum", "The digest is not valid Base64.") from error
    if len(digest) != length:
        raise _refused("Upload-Checksum", f"A digest by {algorithm} has {length} bytes.")
    if exchange.content_length is None:
        raise ApiError(HttpCode.LENGTH_REQUIRED, "A part with a checksum needs a Content-Length.")
    return UploadChecksum(algorithm=algorithm, digest=digest)


def expires_header(upload: Upload) -> dict[str, str]:
    """When the upload is given up (RFC 9110 section 5.6.7)."""
    when = datetime.fromisoformat(upload.status.expires_at).astimezone(UTC)
    return {"upload-expires": format_datetime(when.replace(microsecond=0), usegmt=True)}


def _in_metadata(error: FieldError) -> FieldError:
    key = error.pointer.removeprefix("/")
    if key == "size_bytes":
        return FieldError(pointer="Upload-Length", detail=error.detail)
    return FieldError(pointer="Upload-Metadata", detail=f"{key}: {error.detail}")


def _metadata(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in text.split(","):
        key, _, encoded = pair.strip().partition(" ")
        if not key:
            continue
        if not _KEY.match(key) or key in values:
            raise ApiError.field("Upload-Metadata", "Keys are ASCII without commas, each once.")
        try:
            values[key] = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            if key in _KEYS:
                raise ApiError.field(
                    "Upload-Metadata", f"{key} is not Base64-encoded text."
                ) from error
            values[key] = ""
    return values


def _refused(name: str, detail: str) -> ApiError:
    return ApiError(
        HttpCode.MALFORMED,
        f"{name}: {detail}",
        errors=(FieldError(pointer=name, detail=detail),),
    )
