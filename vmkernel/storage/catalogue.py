"""The volumes and images of all available datastores, in memory, and who is working on which.

Ids are unique on the host. If a disk brings an id that is taken, its object is left out and
reported as a finding.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from vmkernel.host.files import open_regular, read_limited, status
from vmkernel.model import (
    ErrorCode,
    Finding,
    ImageFormat,
    MicaError,
    Severity,
    VolumeFormat,
)
from vmkernel.storage.errors import BrieflyBusy, StorageError, volume_linked
from vmkernel.storage.formats.base import FormatError
from vmkernel.storage.formats.qcow2 import HEADER_PROBE_BYTES, read_header
from vmkernel.storage.layout import RECORD_LIMIT, Layout, Place
from vmkernel.storage.records import ImageRecord, RecordError, VolumeRecord, decode

__all__ = [
    "CHAIN_MAX",
    "Catalogue",
    "Contents",
    "ImageEntry",
    "VolumeEntry",
    "load",
    "probe_file",
    "probe_volume",
]

_log = logging.getLogger(__name__)
CHAIN_MAX = 8
"""Volumes below a linked one: a read may have to look into each of these files."""


@dataclass(frozen=True)
class VolumeEntry:
    id: str
    datastore: str
    place: Place
    format: VolumeFormat
    size_bytes: int
    record: VolumeRecord | None
    reason: str | None = None
    """Why it can't be used, apart from its backing chain."""
    backing_file: str | None = None
    """The backing file that its header names."""
    store_uuid: str = ""
    """The UUID of its datastore."""

    def voids(self, other: VolumeEntry) -> bool:
        """True if a move has made the other invalid in favour of this one."""
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
    id: str
    datastore: str
    place: Place
    format: ImageFormat
    record: ImageRecord | None
    reason: str | None = None


@dataclass
class Contents:
    volumes: list[VolumeEntry] = field(default_factory=list)
    images: list[ImageEntry] = field(default_factory=list)


@dataclass
class _Lock:
    what: str
    shared_for: str | None
    """What others may do to the object at the same time; None: nothing."""
    in_use: bool
    """True if a VM may use the volume at the same time."""
    lasting: int = 0
    """How many hold it for more than a moment."""
    holders: int = 0


class Catalogue:
    """Owned by the event loop's thread."""

    def __init__(
        self, announce: Callable[[str, str, str], None] = lambda _type, _kind, _id: None
    ) -> None:
        """`announce(event_type, kind, id)` is called when an object was made or changed. Objects
        that appear or disappear with a datastore are not announced."""
        self._announce = announce
        self.volumes: dict[str, VolumeEntry] = {}
        self.images: dict[str, ImageEntry] = {}
        self._locks: dict[tuple[str, str], _Lock] = {}
        self._used: set[str] = set()
        self._readers: dict[str, int] = {}
        self._left_out: dict[str, list[Finding]] = {}
        self._hidden: dict[str, list[VolumeEntry]] = {}
        """Volumes that were left out: their backing volumes must not change either."""

    def add(self, datastore: str, contents: Contents) -> list[VolumeEntry]:
        """Add the content of a new datastore; returns what a move has left behind,
        to be removed.
        """
        left_out = []
        hidden = self._hidden[datastore] = []
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
                hidden.append(volume)
                left_out.append(_taken("volume", volume.id, datastore))
        for image in contents.images:
            if self.images.setdefault(image.id, image) is not image:
                left_out.append(_taken("image", image.id, datastore))
        self._left_out[datastore] = left_out
        return void

    def drop(self, datastore: str) -> None:
        """Forget the content of a datastore that is being detached."""
        self.volumes = {k: v for k, v in self.volumes.items() if v.datastore != datastore}
        self.images = {k: v for k, v in self.images.items() if v.datastore != datastore}
        self._left_out.pop(datastore, None)
        self._hidden.pop(datastore, None)

    def findings(self) -> Iterator[Finding]:
        """What was left out and what is broken."""
        for findings in self._left_out.values():
            yield from findings
        for volume in self.volumes.values():
            if (reason := self.fault(volume)) is not None:
                yield _unusable("volume", volume.id, reason)
        for image in self.images.values():
            if image.reason is not None:
                yield _unusable("image", image.id, image.reason)

    def volume(self, volume_id: str) -> VolumeEntry:
        """One volume; `not-found` if there is none."""
        if (entry := self.volumes.get(volume_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no volume {volume_id}.")
        return entry

    # --- linked volumes -----------------------------------------------------------------------

    def chain(self, entry: VolumeEntry) -> tuple[VolumeEntry, ...]:
        """A volume's backing chain, from the top down; RecordError if it isn't what the volume was
        linked to.
        """
        found: list[VolumeEntry] = []
        upper = entry
        while upper.record is not None and (link := upper.record.backing) is not None:
            base = self.volumes.get(link.volume)
            if base is None or base.store_uuid != entry.store_uuid:
                raise RecordError(f"its base, volume {link.volume}, is missing")
            if base.reason is not None or base.record is None:
                raise RecordError(f"its base, volume {base.id}, can't be used: {base.reason}")
            if base.record.created_at != link.created_at:
                raise RecordError(f"volume {base.id} is not the one that it was linked to")
            if upper.backing_file != base.place.data.name:
                raise RecordError(
                    f"its file names {upper.backing_file!r} as its base, and not volume {base.id}"
                )
            found.append(base)
            if len(found) > CHAIN_MAX:
                raise RecordError(f"more than {CHAIN_MAX} volumes are below it")
            upper = base
        return tuple(found)

    def fault(self, entry: VolumeEntry) -> str | None:
        """Why a volume or its backing chain can't be used."""
        if entry.reason is not None:
            return entry.reason
        try:
            self.chain(entry)
        except RecordError as error:
            return str(error)
        return None

    def with_bases(self, volumes: Iterable[str], datastore: str) -> list[str]:
        """A datastore's volumes of these, and their backing chains as far as they exist."""
        found: dict[str, None] = {}
        for volume_id in volumes:
            entry = self.volumes.get(volume_id)
            while entry is not None and entry.datastore == datastore and entry.id not in found:
                found[entry.id] = None
                base = _base_of(entry)
                entry = self.volumes.get(base) if base is not None else None
        return list(found)

    def broken(self, datastore: str) -> list[str]:
        """The volumes of a datastore whose own file or description can't be used."""
        return [
            volume.id
            for volume in self.volumes.values()
            if volume.reason is not None and volume.datastore == datastore
        ]

    def linked(self) -> dict[str, tuple[str, ...]]:
        """The linked clones of each volume that has any, sorted. Volumes with an unreadable
        description are included if their files say so.
        """
        found: dict[str, list[str]] = {}
        hidden = (volume for volumes in self._hidden.values() for volume in volumes)
        for volume in sorted((*self.volumes.values(), *hidden), key=lambda volume: volume.id):
            base = _base_of(volume)
            there = self.volumes.get(base) if base is not None else None
            if there is not None and there.store_uuid == volume.store_uuid:
                found.setdefault(there.id, []).append(volume.id)
        return {base: tuple(children) for base, children in found.items()}

    def children(self, volume_id: str) -> tuple[str, ...]:
        """The linked clones of one volume; see `linked`."""
        return self.linked().get(volume_id, ())

    def refuse_children(self, volume_id: str) -> None:
        """Raise `in-use` if linked clones need a volume's data unchanged."""
        if children := self.children(volume_id):
            raise volume_linked(volume_id, children)

    def image(self, image_id: str) -> ImageEntry:
        """One image; `not-found` if there is none."""
        if (entry := self.images.get(image_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no image {image_id}.")
        return entry

    def seen(self, found: VolumeEntry) -> None:
        """Record the new state of a volume that is not in use."""
        known = self.volumes.get(found.id)
        if known is None or known.place.record != found.place.record:
            return
        if self.busy("volume", found.id) is not None:
            return
        if known.record is not None:
            if found.record is not None and found.record.revision != known.record.revision:
                return  # it was changed while it was looked at
            found = replace(found, record=known.record)
        if (known.reason, known.backing_file) == (found.reason, found.backing_file):
            return
        _log.warning("volume %s: %s", found.id, found.reason or "can be used again")
        self.volumes[found.id] = replace(found, store_uuid=known.store_uuid)

    def described(
        self, volume_id: str, record: VolumeRecord, size_bytes: int | None = None
    ) -> VolumeEntry:
        """Record a volume's new description, and its new size if given."""
        entry = self.volumes[volume_id]
        changed = replace(entry, record=record, size_bytes=size_bytes or entry.size_bytes)
        self.take_volume(changed)
        return changed

    def take_volume(self, entry: VolumeEntry) -> None:
        """A volume is new, or was changed."""
        known = entry.id in self.volumes
        self.volumes[entry.id] = entry
        self._announce("volume.updated" if known else "volume.created", "volume", entry.id)

    def take_image(self, entry: ImageEntry) -> None:
        """An image is new."""
        self.images[entry.id] = entry
        self._announce("image.created", "image", entry.id)

    def _refuse_busy(self, kind: str, object_id: str) -> None:
        lock = self._locks.get((kind, object_id))
        if lock is not None:
            text = f"The {kind} {object_id} is being {lock.what}."
            raise BrieflyBusy(text) if not lock.lasting else StorageError(ErrorCode.CONFLICT, text)

    def take_used(self) -> frozenset[str]:
        """The volumes that were in use since the last call."""
        used, self._used = self._used, set()
        return frozenset(used)

    @contextlib.contextmanager
    def locked(
        self,
        kind: str,
        object_id: str,
        what: str,
        *,
        shared: bool = False,
        in_use: bool = False,
        brief: bool = False,
    ) -> Iterator[None]:
        """Keep all other work off an object while it is being `what`; `conflict` if it is in work
        already. With `shared`, any number may do the same to it at once; with `in_use`, a VM may
        open a volume meanwhile, or has it open. What is `brief` ends within moments:
        `BrieflyBusy` reports that, so that a caller can wait; a VM needn't."""
        key = (kind, object_id)
        lock = self._locks.get(key)
        if lock is None or not shared or lock.shared_for != what:
            self._refuse_busy(kind, object_id)
            lock = self._locks[key] = _Lock(what, what if shared else None, in_use)
        lock.holders += 1
        lock.lasting += not brief
        try:
            yield
        finally:
            lock.holders -= 1
            lock.lasting -= not brief
            if not lock.holders:
                del self._locks[key]
                if kind == "volume":
                    self._used.add(object_id)

    def busy(self, kind: str, object_id: str) -> str | None:
        """What is being done to an object."""
        lock = self._locks.get((kind, object_id))
        return lock.what if lock is not None else None

    def keeps_from_use(self, volume_id: str) -> str | None:
        """What is being done to a volume that prevents its use by a VM."""
        lock = self._locks.get(("volume", volume_id))
        return lock.what if lock is not None and lock.lasting and not lock.in_use else None

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
    """Read all descriptions of a datastore (blocking). What is broken is reported, not raised."""
    contents = Contents()
    marker = layout.read_marker()
    for volume_id in layout.described(layout.volumes):
        found = probe_volume(layout, datastore, volume_id)
        if found.reason is not None:
            _log.warning("volume %s on %s: %s", volume_id, datastore, found.reason)
        contents.volumes.append(replace(found, store_uuid=marker.uuid if marker else ""))
    for image_id in layout.described(layout.images):
        contents.images.append(_load_image(layout, datastore, image_id))
    return contents


def probe_file(path: Path, volume_format: VolumeFormat) -> tuple[int, str | None]:
    """The size that the guest sees and its backing file, from the file's header (blocking);
    RecordError if it can't be a volume's.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY, single=True), "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if volume_format is VolumeFormat.RAW:
                return length, None
            header = read_header(
                file.read(HEADER_PROBE_BYTES), may_be_linked=True, file_bytes=length
            )
        return header.virtual_size_bytes, header.backing_file
    except FileNotFoundError as error:
        raise RecordError("its file is missing") from error
    except OSError as error:
        raise RecordError(f"its file can't be read ({error.strerror})") from error
    except FormatError as error:
        raise RecordError(str(error)) from error


def probe_volume(layout: Layout, datastore: str, volume_id: str) -> VolumeEntry:
    """One volume, read from its files (blocking)."""
    record: VolumeRecord | None = None
    volume_format = VolumeFormat.QCOW2
    size_bytes = 0
    backing_file: str | None = None
    reason: str | None = None
    try:
        found = decode(VolumeRecord, _read(layout.volumes / f"{volume_id}.json"))
        if found.id != volume_id:
            raise RecordError(f"its description is of {found.id}")
        record = found
        volume_format = record.format
        data = layout.volume(volume_id, volume_format).data
        size_bytes, backing_file = probe_file(data, volume_format)
        if record.backing is None and backing_file is not None:
            raise RecordError("its file needs a backing file, but its description names none")
        if record.backing is not None and backing_file is None:
            record = msgspec.structs.replace(record, backing=None)
    except RecordError as error:
        reason = str(error)
        if record is None:
            volume_format = layout.guess_volume(volume_id) or volume_format
            with contextlib.suppress(RecordError):
                data = layout.volume(volume_id, volume_format).data
                _, backing_file = probe_file(data, volume_format)
    return VolumeEntry(
        volume_id,
        datastore,
        layout.volume(volume_id, volume_format),
        volume_format,
        size_bytes,
        record,
        reason,
        backing_file,
    )


def _base_of(volume: VolumeEntry) -> str | None:
    if volume.record is not None:
        return volume.record.backing.volume if volume.record.backing else None
    return volume.backing_file.rpartition(".")[0] if volume.backing_file else None


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
            raise RecordError("its file is missing, has another size, or is not a regular file")
        if image_format is ImageFormat.QCOW2:
            _prove_image(layout.image(image_id, image_format).data, record)
    except RecordError as error:
        reason = str(error)
        _log.warning("image %s on %s: %s", image_id, datastore, reason)
        if record is None:
            image_format = layout.guess_image(image_id) or image_format
    return ImageEntry(
        image_id, datastore, layout.image(image_id, image_format), image_format, record, reason
    )


def _prove_image(path: Path, record: ImageRecord) -> None:
    """An image in a new datastore may have been changed since it was verified: RecordError if the
    file names others, or holds another disk.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            header = read_header(file.read(HEADER_PROBE_BYTES), file_bytes=record.size_bytes)
    except OSError as error:
        raise RecordError(f"its file can't be read ({error.strerror})") from error
    except FormatError as error:
        raise RecordError(str(error)) from error
    if header.virtual_size_bytes != record.virtual_size_bytes:
        raise RecordError("its file holds a disk of another size than its description says")


def _is_whole(path: Path, size_bytes: int) -> bool:
    """True for a regular file of that size. A datastore may come from anywhere: a symbolic link in
    it could lead to any file of this host.
    """
    try:
        found = status(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes


def _read(path: Path) -> bytes:
    try:
        return read_limited(path, RECORD_LIMIT)
    except OSError as error:
        raise RecordError(f"its description can't be read ({error.strerror})") from error


def _unusable(kind: str, object_id: str, reason: str) -> Finding:
    return Finding(
        code=f"{kind}-unusable",
        severity=Severity.ERROR,
        message=f"{kind.capitalize()} {object_id}: {reason}.",
        subject=f"{kind}/{object_id}",
    )


def _taken(kind: str, object_id: str, datastore: str) -> Finding:
    _log.warning("%s %s of %s is left out: the id is taken", kind, object_id, datastore)
    return Finding(
        code=f"{kind}-id-taken",
        severity=Severity.WARNING,
        message=f"The {kind} {object_id} of datastore {datastore} is left out: its id is taken.",
        subject=f"datastore/{datastore}",
    )
