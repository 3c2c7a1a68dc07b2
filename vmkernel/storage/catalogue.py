"""The volumes and images of all available datastores, in memory; and who is working on which.

Ids are unique on the host. Where a disk brings an id that is taken, its object is left out and a
finding says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from vmkernel.host.files import open_regular, read_limited
from vmkernel.model import (
    ErrorCode,
    Finding,
    ImageFormat,
    MicaError,
    Severity,
    VolumeFormat,
)
from vmkernel.model.base import SLUG_PATTERN
from vmkernel.storage.errors import StorageError
from vmkernel.storage.layout import RECORD_LIMIT, Layout, Place
from vmkernel.storage.qcow2 import HEADER_PROBE_BYTES, Qcow2Error, read_header
from vmkernel.storage.records import ImageRecord, RecordError, VolumeRecord, decode

__all__ = ["Catalogue", "Contents", "ImageEntry", "VolumeEntry", "load", "volume_size"]

_log = logging.getLogger(__name__)
_SLUG = re.compile(SLUG_PATTERN)


@dataclass(frozen=True)
class VolumeEntry:
    """A volume as it was found."""

    id: str
    datastore: str
    place: Place
    format: VolumeFormat
    size_bytes: int
    record: VolumeRecord | None
    reason: str | None = None
    """Why it can't be used."""
    store_uuid: str = ""
    """Of its datastore."""

    def voids(self, other: VolumeEntry) -> bool:
        """True where this is what became of the other by a move."""
        mine, theirs = self.record, other.record
        return (
            mine is not None
            and theirs is not None
            and mine.moved_from is not None
            and mine.moved_from.datastore_uuid == other.store_uuid
            and mine.created_at == theirs.created_at
            and mine.revision > theirs.revision
        )


@dataclass(frozen=True)
class ImageEntry:
    """An image as it was found."""

    id: str
    datastore: str
    place: Place
    format: ImageFormat
    record: ImageRecord | None
    reason: str | None = None


@dataclass
class Contents:
    """What one datastore holds."""

    volumes: list[VolumeEntry] = field(default_factory=list)
    images: list[ImageEntry] = field(default_factory=list)


class Catalogue:
    """Owned by the event loop's thread."""

    def __init__(self) -> None:
        self.volumes: dict[str, VolumeEntry] = {}
        self.images: dict[str, ImageEntry] = {}
        self._busy: dict[tuple[str, str], str] = {}
        self._readers: dict[str, int] = {}
        self._left_out: dict[str, list[Finding]] = {}

    def add(self, datastore: str, contents: Contents) -> list[VolumeEntry]:
        """Take in what a datastore that came holds; what a move has left behind is returned, to
        be removed."""
        left_out = []
        void = []
        for volume in contents.volumes:
            known = self.volumes.setdefault(volume.id, volume)
            if known is volume:
                continue
            if known.voids(volume):
                void.append(volume)
            elif volume.voids(known):
                self.volumes[volume.id] = volume
                void.append(known)
            else:
                left_out.append(_taken("volume", volume.id, datastore))
        for image in contents.images:
            if self.images.setdefault(image.id, image) is not image:
                left_out.append(_taken("image", image.id, datastore))
        self._left_out[datastore] = left_out
        return void

    def drop(self, datastore: str) -> None:
        """Forget what a datastore that goes holds."""
        self.volumes = {k: v for k, v in self.volumes.items() if v.datastore != datastore}
        self.images = {k: v for k, v in self.images.items() if v.datastore != datastore}
        self._left_out.pop(datastore, None)

    def findings(self) -> Iterator[Finding]:
        """What was left out, and what is broken."""
        for findings in self._left_out.values():
            yield from findings
        entries: list[VolumeEntry | ImageEntry] = [*self.volumes.values(), *self.images.values()]
        for entry in entries:
            if entry.reason is not None:
                kind = "volume" if isinstance(entry, VolumeEntry) else "image"
                yield Finding(
                    code=f"{kind}-unusable",
                    severity=Severity.ERROR,
                    message=f"{kind.capitalize()} {entry.id}: {entry.reason}.",
                    subject=f"{kind}/{entry.id}",
                )

    def volume(self, volume_id: str) -> VolumeEntry:
        """One volume; `not-found` otherwise."""
        if (entry := self.volumes.get(volume_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no volume {volume_id}.")
        return entry

    def image(self, image_id: str) -> ImageEntry:
        """One image; `not-found` otherwise."""
        if (entry := self.images.get(image_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no image {image_id}.")
        return entry

    def described(
        self, volume_id: str, record: VolumeRecord, size_bytes: int | None = None
    ) -> VolumeEntry:
        """A volume has another description now, and another size where that is given."""
        entry = self.volumes[volume_id]
        changed = replace(entry, record=record, size_bytes=size_bytes or entry.size_bytes)
        self.volumes[volume_id] = changed
        return changed

    def claim(self, kind: str, object_id: str, what: str) -> None:
        """Keep everybody else off an object; `conflict` where somebody is at it. See `release`."""
        if (busy := self._busy.get((kind, object_id))) is not None:
            raise StorageError(ErrorCode.CONFLICT, f"The {kind} {object_id} is being {busy}.")
        self._busy[(kind, object_id)] = what

    def release(self, kind: str, object_id: str) -> None:
        """Let others at an object again."""
        self._busy.pop((kind, object_id), None)

    @contextlib.contextmanager
    def claimed(self, kind: str, object_id: str, what: str) -> Iterator[None]:
        """The same as a context."""
        self.claim(kind, object_id, what)
        try:
            yield
        finally:
            self.release(kind, object_id)

    def busy(self, kind: str, object_id: str) -> str | None:
        """What is being done to an object."""
        return self._busy.get((kind, object_id))

    @contextlib.contextmanager
    def reading(self, image_id: str) -> Iterator[None]:
        """Keep an image from being deleted."""
        self._readers[image_id] = self._readers.get(image_id, 0) + 1
        try:
            yield
        finally:
            self._readers[image_id] -= 1
            if not self._readers[image_id]:
                del self._readers[image_id]

    def is_read(self, image_id: str) -> bool:
        """True while a volume is being filled from the image."""
        return image_id in self._readers


def load(layout: Layout, datastore: str) -> Contents:
    """Read all descriptions of a datastore (blocking). What is broken is told, not raised."""
    contents = Contents()
    marker = layout.read_marker()
    for volume_id in _ids(layout.volumes):
        found = _load_volume(layout, datastore, volume_id)
        contents.volumes.append(replace(found, store_uuid=marker.uuid if marker else ""))
    for image_id in _ids(layout.images):
        contents.images.append(_load_image(layout, datastore, image_id))
    return contents


def volume_size(path: Path, volume_format: VolumeFormat) -> int:
    """The size that the guest sees, from the file itself; RecordError where it has none."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            if volume_format is VolumeFormat.RAW:
                return os.fstat(file.fileno()).st_size
            return read_header(file.read(HEADER_PROBE_BYTES)).virtual_size_bytes
    except FileNotFoundError as error:
        raise RecordError("its file is missing") from error
    except OSError as error:
        raise RecordError(f"its file can't be read ({error.strerror})") from error
    except Qcow2Error as error:
        raise RecordError(str(error)) from error


def _ids(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json") if _SLUG.match(path.stem))


def _load_volume(layout: Layout, datastore: str, volume_id: str) -> VolumeEntry:
    record: VolumeRecord | None = None
    volume_format = VolumeFormat.QCOW2
    size_bytes = 0
    reason: str | None = None
    try:
        found = decode(VolumeRecord, _read(layout.volumes / f"{volume_id}.json"))
        if found.id != volume_id:
            raise RecordError(f"its description is of {found.id}")
        record = found
        volume_format = record.format
        size_bytes = volume_size(layout.volume(volume_id, volume_format).data, volume_format)
    except RecordError as error:
        reason = str(error)
        _log.warning("volume %s on %s: %s", volume_id, datastore, reason)
        if record is None:
            volume_format = layout.guess_volume(volume_id) or volume_format
    return VolumeEntry(
        volume_id,
        datastore,
        layout.volume(volume_id, volume_format),
        volume_format,
        size_bytes,
        record,
        reason,
    )


def _load_image(layout: Layout, datastore: str, image_id: str) -> ImageEntry:
    record: ImageRecord | None = None
    image_format = ImageFormat.RAW
    reason: str | None = None
    try:
        found = decode(ImageRecord, _read(layout.images / f"{image_id}.json"))
        if found.id != image_id:
            raise RecordError(f"its description is of {found.id}")
        record = found
        image_format = record.format
        if not _is_whole(layout.image(image_id, image_format).data, record.size_bytes):
            raise RecordError("its file is missing, has another size, or is no regular file")
    except RecordError as error:
        reason = str(error)
        _log.warning("image %s on %s: %s", image_id, datastore, reason)
        if record is None:
            image_format = layout.guess_image(image_id) or image_format
    return ImageEntry(
        image_id, datastore, layout.image(image_id, image_format), image_format, record, reason
    )


def _is_whole(path: Path, size_bytes: int) -> bool:
    """True for a regular file of that size. A datastore may come from anybody: a symbolic link in
    it could lead to any file of this host."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes


def _read(path: Path) -> bytes:
    try:
        return read_limited(path, RECORD_LIMIT)
    except OSError as error:
        raise RecordError(f"its description can't be read ({error.strerror})") from error


def _taken(kind: str, object_id: str, datastore: str) -> Finding:
    _log.warning("%s %s of %s is left out: the id is taken", kind, object_id, datastore)
    return Finding(
        code=f"{kind}-id-taken",
        severity=Severity.WARNING,
        message=f"The {kind} {object_id} of datastore {datastore} is left out: its id is taken.",
        subject=f"datastore/{datastore}",
    )
