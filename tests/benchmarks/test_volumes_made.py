"""A disk of 10 GiB made and cloned, against `qemu-img create` and `cp` on the same file system.

The file system is XFS in a file, mounted for this, because clones share their blocks there. Where
that can't be had (no root, no loop devices), the record says so, and measures copies of what a
disk of 1 GiB holds.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote_api.client.sdk import Mica
from tests.benchmarks.records import REPEATS, Record
from tests.framework.hosted import hosted_mica, qemu_programs
from vmkernel.model import DatastoreKind, DatastoreSpec, DiskSpec, VmSpec, VolumeFormat, VolumeSpec

GIB, MIB = 1 << 30, 1 << 20
DATASTORE = "main"
PIECES = 64
PIECE_BYTES = 4 * MIB


@dataclass(frozen=True)
class Place:
    """Where the disks lie."""

    folder: Path
    kind: str
    disk_bytes: int
    copy: tuple[str, ...]
    """The plain way to a clone."""


@contextmanager
def _place(folder: Path) -> Iterator[Place]:
    """XFS with reflink, or what there is."""
    image, target = folder / "xfs.img", folder / "xfs"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(24 * GIB)
    try:
        for argv in (
            ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)],
            ["mount", "-o", "loop", str(image), str(target)],
        ):
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        image.unlink()
        yield Place(target, f"no XFS could be mounted ({reason}): copies", GIB, ("cp",))
        return
    try:
        yield Place(target, "XFS on a loop device", 10 * GIB, ("cp", "--reflink=always"))
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True, timeout=60)
        image.unlink()


def _timed_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=600)


def _sync(path: Path) -> None:
    """Make a file durable, as what Mica answers is."""
    for name in (path, path.parent):
        fd = os.open(name, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _fill(path: Path) -> None:
    """Data in pieces all over a disk, so that a clone has extents to share."""
    with path.open("r+b") as file:
        for number in range(PIECES):
            file.seek(path.stat().st_size // PIECES * number)
            file.write(os.urandom(PIECE_BYTES))
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.timeout(1200)
def test_making_and_cloning_disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    record = Record("volumes-made")
    folder = tmp_path_factory.mktemp("v")
    with _place(folder) as place, hosted_mica(folder) as host:
        mica = Mica(host.address, token=host.token, fingerprint=host.fingerprint, timeout_s=60.0)
        root, plain = place.folder / "main", place.folder / "plain"
        root.mkdir()
        plain.mkdir()
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(root))
        mica.wait(mica.create_datastore(DATASTORE, spec))
        _create(record, place, mica, plain, str(qemu_programs(folder)["qemu-img"]))
        _clone(record, place, mica, root, plain)
        mica.close()
        record.note("file_system", place.kind)
    record.write()


def _create(record: Record, place: Place, mica: Mica, plain: Path, qemu_img: str) -> None:
    size = place.disk_bytes
    ours, plainly = [], []
    for number in range(REPEATS):
        name = f"new-{number}"
        spec = VolumeSpec(datastore=DATASTORE, size_bytes=size, format=VolumeFormat.QCOW2)
        ours.append(_timed_ms(lambda n=name, s=spec: mica.wait(mica.create_volume(n, s))))  # type: ignore[misc]
        file = plain / f"{name}.qcow2"

        def create(file: Path = file) -> None:
            _run(qemu_img, "create", "-q", "-f", "qcow2", str(file), str(size))
            _sync(file)

        plainly.append(_timed_ms(create))
    what = f"create a qcow2 of {size // GIB} GiB"
    record.compare(what, "ms", ours, plainly, floor="qemu-img create and fsync")


def _clone(record: Record, place: Place, mica: Mica, root: Path, plain: Path) -> None:
    size = place.disk_bytes
    spec = VolumeSpec(datastore=DATASTORE, size_bytes=size, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("base", spec))
    base = root / "volumes/base.raw"
    _fill(base)
    mica.create_vm("base", VmSpec(datastore=DATASTORE, disks=(DiskSpec(volume="base"),)))
    volumes, machines, plainly = [], [], []
    for number in range(REPEATS):
        name = f"clone-{number}"
        copied = VolumeSpec(
            datastore=DATASTORE, size_bytes=size, format=VolumeFormat.RAW, source_volume="base"
        )
        volumes.append(_timed_ms(lambda n=name, s=copied: mica.wait(mica.create_volume(n, s))))  # type: ignore[misc]
        machines.append(_timed_ms(lambda n=f"vm-{name}": mica.wait(mica.clone_vm("base", n))))  # type: ignore[misc]
        file = plain / f"{name}.raw"

        def copy(file: Path = file) -> None:
            _run(*place.copy, str(base), str(file))
            _sync(file)

        plainly.append(_timed_ms(copy))
    floor = f"{' '.join(place.copy)} and fsync"
    held = PIECES * PIECE_BYTES // MIB
    what = f"a disk of {size // GIB} GiB that holds {held} MiB"
    record.compare(f"clone {what}", "ms", volumes, plainly, floor=floor)
    record.figure(f"clone a VM with {what}", "ms", machines)
    record.ratio(f"clone a VM with {what}: ratio to {floor}", machines, plainly)
