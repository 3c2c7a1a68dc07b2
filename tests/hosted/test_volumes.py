"""Volumes made by the real qemu-img: blank, from images, grown, cut, deleted."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica
from vmkernel.model import Allocation, ImageFormat, VolumeFormat, VolumeSpec

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _tidy(mica: Mica) -> Iterator[None]:
    """Take away what the test has made."""
    yield
    for volume in list(mica.volumes()):
        mica.delete_volume(volume.id)
    for image in list(mica.images()):
        mica.delete_image(image.id)


def _spec(size: int, **fields: object) -> VolumeSpec:
    return VolumeSpec(**{"datastore": "main", "size_bytes": size, **fields})  # type: ignore[arg-type]


def _file(host: HostedMica, name: str) -> Path:
    return host.folder / "datastores/main/volumes" / name


def _virtual_size(path: Path) -> int:
    with path.open("rb") as file:
        size: int = struct.unpack_from(">Q", file.read(32), 24)[0]
    return size


def test_blank_volumes(host: HostedMica, mica: Mica) -> None:
    mica.wait(mica.create_volume("thin", _spec(1 << 30)))
    thick = _spec(8 * MIB, format=VolumeFormat.RAW, allocation=Allocation.THICK)
    mica.wait(mica.create_volume("thick", thick))
    assert _virtual_size(_file(host, "thin.qcow2")) == 1 << 30
    assert mica.volume("thin").status.allocated_bytes < MIB
    assert _file(host, "thick.raw").stat().st_size == 8 * MIB
    assert mica.volume("thick").status.allocated_bytes >= 8 * MIB


def test_volumes_from_an_image_hold_its_data(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    data = os.urandom(5 * MIB) + bytes(3 * MIB)
    (tmp_path / "disk.raw").write_bytes(data)
    mica.upload_image("raw", tmp_path / "disk.raw", datastore="main", image_format=ImageFormat.RAW)
    mica.wait(mica.create_volume("a", _spec(16 * MIB, source_image="raw")))
    assert _virtual_size(_file(host, "a.qcow2")) == 16 * MIB
    # The qcow2 that came out of it, as an image, gives the same data again.
    mica.upload_image(
        "qcow2", _file(host, "a.qcow2"), datastore="main", image_format=ImageFormat.QCOW2
    )
    raw = _spec(16 * MIB, source_image="qcow2", format=VolumeFormat.RAW)
    operation = mica.wait(mica.create_volume("b", raw))
    assert operation.kind == "volume.create"
    assert _file(host, "b.raw").read_bytes() == data + bytes(8 * MIB)


def test_resizing(host: HostedMica, mica: Mica) -> None:
    for name, volume_format in (("q", VolumeFormat.QCOW2), ("r", VolumeFormat.RAW)):
        mica.wait(mica.create_volume(name, _spec(4 * MIB, format=volume_format)))
        mica.wait(mica.resize_volume(name, 12 * MIB))
        assert mica.volume(name).spec.size_bytes == 12 * MIB
        with pytest.raises(RefusedError, match="allow_shrink"):
            mica.resize_volume(name, 8 * MIB)
        mica.wait(mica.resize_volume(name, 8 * MIB, allow_shrink=True))
        assert mica.volume(name).spec.size_bytes == 8 * MIB
    assert _virtual_size(_file(host, "q.qcow2")) == 8 * MIB
    assert _file(host, "r.raw").stat().st_size == 8 * MIB


def _break(path: Path) -> None:
    """Let the first table of a qcow2 lead to a place that no cluster has."""
    with path.open("r+b") as file:
        at = struct.unpack_from(">Q", file.read(48), 40)[0]
        file.seek(at)
        file.write(struct.pack(">Q", (1 << 63) | 512))


def _incoming(host: HostedMica) -> list[Path]:
    return list((host.folder / "datastores/main/.incoming").iterdir())


def test_a_damaged_image_is_refused(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    mica.wait(mica.create_volume("good", _spec(64 * MIB)))
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(_file(host, "good.qcow2").read_bytes())
    _break(broken)
    with pytest.raises(RefusedError, match="cut off or damaged"):
        mica.upload_image("broken", broken, datastore="main", image_format=ImageFormat.QCOW2)
    assert list(mica.images()) == []
    assert _incoming(host) == []


def test_an_image_that_was_damaged_since_fails_the_volume_and_leaves_nothing(
    host: HostedMica, mica: Mica
) -> None:
    """A disk may lose what it was given: the tables are not looked at again before they're used."""
    mica.wait(mica.create_volume("good", _spec(64 * MIB)))
    mica.upload_image(
        "broken", _file(host, "good.qcow2"), datastore="main", image_format=ImageFormat.QCOW2
    )
    (stored,) = (host.folder / "datastores/main/images").glob("broken*.qcow2")
    _break(stored)
    with pytest.raises(OperationFailedError, match="its data are damaged"):
        mica.wait(mica.create_volume("bad", _spec(64 * MIB, source_image="broken")))
    assert [volume.id for volume in mica.volumes()] == ["good"]
    assert not _file(host, "bad.qcow2").exists()
    assert _incoming(host) == []
