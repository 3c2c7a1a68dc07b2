"""The directory tree of a datastore: names, marker, what is swept at opening; it blocks.

<root>/mica-datastore.json   marker
<root>/vms/<vm id>/          a VM's own files (vmkernel/vm)
<root>/volumes/<id>.{qcow2,raw} + <id>.json
<root>/images/<id>.<ext> + <id>.json
<root>/uploads/<id>.part + <id>.json   resumable uploads; kept until they expire
<root>/.incoming/            under way; emptied at opening
<root>/mica-reserve          room that is set aside for what frees room on a full datastore

A file and its description come and go in an order in which every crash is repaired at opening:
  come  data complete in .incoming -> description written -> data renamed into place
        (described, but still in .incoming: renamed now)
  go    data renamed into .incoming -> description removed -> data removed
        (still described: renamed back; else swept)
  become another format
        data complete in .incoming -> described again -> renamed into place -> old data removed
        (what the description says is renamed now, what it says to be void is removed)
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmkernel import clock
from vmkernel.host.files import (
    RECORD_MAX_BYTES,
    create_file,
    exists,
    fsync_directory,
    make_directory,
    names,
    read_limited,
    remove,
    remove_half_written,
    remove_tree,
    rename_durably,
    unlink_durably,
    write_durably,
)
from vmkernel.model import ImageFormat, VolumeFormat
from vmkernel.model.base import SLUG_PATTERN
from vmkernel.storage.records import (
    Marker,
    RecordError,
    StoredRecord,
    VolumeRecord,
    decode,
    encode,
)

__all__ = ["Layout", "Place", "RECORD_LIMIT"]

_log = logging.getLogger(__name__)

RECORD_LIMIT = RECORD_MAX_BYTES
_STARTED_S = time.time()
_DEPTH = 4
"""vms/<vm>/snapshots/<snapshot>/"""
_SLUG = re.compile(SLUG_PATTERN)
_MARKER = "mica-datastore.json"
_RESERVE = "mica-reserve"
_RESERVE_BYTES = 2 << 20
"""A qcow2 that forgets a snapshot rewrites its table of snapshots (64 KiB) and perhaps reference
counts (64 KiB), for each of up to eight disks; records of a few KiB are written as well."""
_IMAGE_SUFFIX = {
    ImageFormat.ISO: "iso",
    ImageFormat.QCOW2: "qcow2",
    ImageFormat.RAW: "raw",
    ImageFormat.LINUX_KERNEL: "kernel",
    ImageFormat.LINUX_INITRD: "initrd",
}
_FOLDERS = {"vms": 0o755, "volumes": 0o755, "images": 0o755, "uploads": 0o711, ".incoming": 0o711}


@dataclass(frozen=True)
class Place:
    """Where a described file is, and where it is while it is created or deleted."""

    data: Path
    record: Path
    incoming: Path

    def describe(self, record: StoredRecord) -> None:
        """Write the description; durable on return."""
        write_durably(self.record, encode(record))

    def publish(self, record: StoredRecord) -> None:
        """Describe a complete file in `.incoming` and move it into place; durable on return.

        If that fails (a full or failing disk), neither file nor description is left.
        """
        try:
            self.describe(record)
            rename_durably(self.incoming, self.data)
        except OSError:
            for path in (self.record, self.incoming, self.data):
                with contextlib.suppress(OSError):
                    remove(path)
            raise

    def become(self, record: StoredRecord, *, old: StoredRecord) -> None:
        """Replace the object's present data, which may have another name, by a complete file in
        `.incoming`; durable on return, and unchanged if it fails.
        """
        if exists(self.data):
            rename_durably(self.incoming, self.data)
            self.describe(record)
            return
        self.describe(record)
        try:
            rename_durably(self.incoming, self.data)
        except OSError:
            self.describe(old)
            raise

    def remove(self) -> None:
        """Remove file and description; durable on return."""
        if exists(self.data):
            rename_durably(self.data, self.incoming)
        unlink_durably(self.record)
        unlink_durably(self.incoming)

    def discard(self) -> None:
        """Remove what was in progress."""
        unlink_durably(self.incoming)

    def repair(self) -> None:
        """Complete (or undo) what a crash has interrupted."""
        if not exists(self.data) and exists(self.incoming):
            rename_durably(self.incoming, self.data)


class Layout:
    """The tree below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vms = root / "vms"
        self.volumes = root / "volumes"
        self.images = root / "images"
        self.uploads = root / "uploads"
        self.incoming = root / ".incoming"

    def read_marker(self) -> Marker | None:
        """None if there is none; RecordError if it can't be read."""
        try:
            return decode(Marker, read_limited(self.root / _MARKER, RECORD_LIMIT))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"its marker can't be read ({error.strerror})") from error

    def empty(self) -> bool:
        """True if the root is empty (except for what a fresh file system contains)."""
        return all(name == "lost+found" for name in names(self.root))

    def initialise(self) -> Marker:
        """Make the tree in an empty root."""
        marker = Marker(uuid=str(uuid.uuid4()), created_at=clock.now())
        self._make_folders()
        write_durably(self.root / _MARKER, encode(marker), mode=0o644)
        self._set_aside()
        return marker

    def open(self) -> None:
        """Make the folders if missing, repair and remove what was in progress."""
        self._make_folders()
        marker = self.read_marker()
        for volume_id in self.described(self.volumes):
            self._repair_volume(volume_id, marker.uuid if marker else "")
        for image_id in self.described(self.images):
            for suffix in _IMAGE_SUFFIX.values():
                self._place(self.images, "image", image_id, suffix).repair()
        for name in names(self.incoming):
            _log.info("sweeping %r", name)
            remove_tree(self.incoming / name)
        fsync_directory(self.incoming)
        # Not what this vmkernel writes just now, as for VMs that run while a datastore comes back.
        remove_half_written(self.root, before_s=_STARTED_S, depth=_DEPTH)
        self._set_aside()

    @contextlib.contextmanager
    def reserve(self) -> Iterator[None]:
        """Release the reserved space during work that frees space; it is reserved again afterwards,
        or when the datastore is opened with enough space.
        """
        unlink_durably(self.root / _RESERVE)
        try:
            yield
        finally:
            self._set_aside()

    def _set_aside(self) -> None:
        """Optional: if there is no space for it, nothing else fails."""
        path = self.root / _RESERVE
        try:
            fd = create_file(path)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, _RESERVE_BYTES)
        except OSError as error:
            _log.warning("no room is set aside in %s: %s", self.root, error)
            with contextlib.suppress(OSError):
                unlink_durably(path)
        finally:
            os.close(fd)

    def described(self, folder: Path) -> list[str]:
        """The ids of the objects with a description in one of its folders, sorted; invalid ids are
        left out.
        """
        found = (name.removesuffix(".json") for name in names(folder) if name.endswith(".json"))
        return [object_id for object_id in found if _SLUG.match(object_id)]

    def volume(self, volume_id: str, volume_format: VolumeFormat) -> Place:
        return self._place(self.volumes, "volume", volume_id, volume_format.value)

    def image(self, image_id: str, image_format: ImageFormat) -> Place:
        return self._place(self.images, "image", image_id, _IMAGE_SUFFIX[image_format])

    def guess_volume(self, volume_id: str) -> VolumeFormat | None:
        """The format of a volume without a readable description, by its file's name."""
        for volume_format in VolumeFormat:
            if exists(self.volume(volume_id, volume_format).data):
                return volume_format
        return None

    def guess_image(self, image_id: str) -> ImageFormat | None:
        """The format of an image without a readable description, by its file's name."""
        for image_format in ImageFormat:
            if exists(self.image(image_id, image_format).data):
                return image_format
        return None

    def _place(self, folder: Path, kind: str, object_id: str, suffix: str) -> Place:
        name = f"{object_id}.{suffix}"
        return Place(folder / name, folder / f"{object_id}.json", self.incoming / f"{kind}-{name}")

    def _repair_volume(self, volume_id: str, own_uuid: str) -> None:
        path = self.volumes / f"{volume_id}.json"
        try:
            record = decode(VolumeRecord, read_limited(path, RECORD_LIMIT))
        except (OSError, RecordError):
            for volume_format in VolumeFormat:
                self.volume(volume_id, volume_format).repair()
            return
        self.volume(volume_id, record.format).repair()
        void = record.moved_from
        if (
            void is not None
            and void.datastore_uuid == own_uuid
            and void.format is not record.format
            and exists(self.volume(volume_id, record.format).data)
        ):
            unlink_durably(self.volume(volume_id, void.format).data)

    def _make_folders(self) -> None:
        for name, mode in _FOLDERS.items():
            make_directory(self.root / name, mode)
