"""Images from every format and compression, made by the real qemu-img, confined; and out again."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import time
from pathlib import Path

import pytest

from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica, qemu_programs
from tests.framework.web_server import stored_zstd
from vmkernel.model import (
    Compression,
    Image,
    ImageCapture,
    ImageFormat,
    Operation,
    SourceFormat,
    VolumeFormat,
    VolumeSpec,
)

pytestmark = pytest.mark.usefixtures("no_images_left")
MIB = 1 << 20
PIECE = b"data" * 1024
DATA = os.urandom(3 * MIB) + bytes(20 * MIB) + os.urandom(MIB)

FORMATS = {
    "vmdk": (SourceFormat.VMDK, "vmdk", "subformat=monolithicSparse"),
    "stream-vmdk": (SourceFormat.VMDK, "vmdk", "subformat=streamOptimized"),
    "vhd": (SourceFormat.VHD, "vpc", "subformat=dynamic,force_size=on"),
    "fixed-vhd": (SourceFormat.VHD, "vpc", "subformat=fixed,force_size=on"),
    "vhdx": (SourceFormat.VHDX, "vhdx", "subformat=dynamic"),
    "vdi": (SourceFormat.VDI, "vdi", ""),
    "parallels": (SourceFormat.PARALLELS, "parallels", ""),
    "qcow2": (SourceFormat.QCOW2, "qcow2", "compression_type=zstd"),
}


@pytest.fixture(scope="module")
def qemu_img(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that makes the samples."""
    return qemu_programs(tmp_path_factory.mktemp("qemu"))["qemu-img"]


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def _made(outcome: object) -> Image:
    assert isinstance(outcome, Image)
    return outcome


@pytest.mark.parametrize("name", FORMATS)
def test_a_foreign_disk_becomes_a_template_with_the_same_data(
    mica: Mica, tmp_path: Path, qemu_img: Path, raw: Path, name: str
) -> None:
    source_format, qemu_name, options = FORMATS[name]
    sample = tmp_path / name
    words = ["-o", options] if options else []
    _run(qemu_img, "convert", "-f", "raw", "-O", qemu_name, *words, raw, sample)
    image = _made(mica.upload_image(name, sample, datastore="main"))
    assert image.spec.format is ImageFormat.QCOW2
    assert image.status.virtual_size_bytes >= len(DATA)
    origin = image.status.origin
    assert origin is not None
    assert origin.format is source_format
    assert origin.compression is Compression.NONE
    assert origin.size_bytes == sample.stat().st_size
    back = tmp_path / "back.qcow2"
    mica.download_image(name, back)
    _run(qemu_img, "convert", "-f", "qcow2", "-O", "raw", back, tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes()[: len(DATA)] == DATA


@pytest.mark.parametrize("name", ["gzip", "xz", "zstd", "bzip2"])
def test_a_compressed_disk_is_unpacked_with_its_holes(
    host: HostedMica, mica: Mica, tmp_path: Path, raw: Path, name: str
) -> None:
    sample = tmp_path / "disk"
    if name == "gzip":
        sample.write_bytes(gzip.compress(DATA, 1))
    elif name == "xz":
        sample.write_bytes(lzma.compress(DATA, preset=0))
    elif name == "bzip2":
        sample.write_bytes(bz2.compress(DATA))
    else:
        sample.write_bytes(stored_zstd(DATA))
    image = _made(mica.upload_image(name, sample, datastore="main", image_format="raw"))
    assert (image.spec.format, image.spec.size_bytes) == (ImageFormat.RAW, len(DATA))
    assert image.status.origin is not None
    assert image.status.origin.compression is Compression(name)
    file = host.folder / "datastores/main/images" / f"{name}.raw"
    assert file.read_bytes() == DATA
    assert file.stat().st_blocks * 512 <= 5 * MIB


def _refused(mica: Mica, file: Path, **fields: object) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        mica.upload_image("no", file, datastore="main", **fields)  # type: ignore[arg-type]
    return refused.value


def test_what_names_other_files_is_refused_by_name(
    mica: Mica, tmp_path: Path, qemu_img: Path, raw: Path
) -> None:
    base = tmp_path / "base.vmdk"
    _run(qemu_img, "convert", "-f", "raw", "-O", "vmdk", raw, base)
    child = tmp_path / "child.vmdk"
    _run(qemu_img, "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", child)
    assert "base.vmdk" in str(_refused(mica, child))
    flat = tmp_path / "flat.vmdk"
    _run(qemu_img, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", flat, "1M")
    assert "flat-flat.vmdk" in str(_refused(mica, flat))
    backed = tmp_path / "backed.qcow2"
    _run(qemu_img, "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", backed, "1M")
    assert "backing file" in str(_refused(mica, backed))
    outside = tmp_path / "outside.qcow2"
    option = f"data_file={tmp_path}/data,data_file_raw=on"
    _run(qemu_img, "create", "-q", "-f", "qcow2", "-o", option, outside, "1M")
    assert "another file" in str(_refused(mica, outside))
    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"\1" * MIB)
    assert "set the format" in str(_refused(mica, nothing))


def test_broken_cut_off_and_swelling_data_leave_nothing(
    mica: Mica, tmp_path: Path, qemu_img: Path, raw: Path
) -> None:
    packed = gzip.compress(DATA, 1)
    sample = tmp_path / "sample.gz"
    sample.write_bytes(packed[:-100])
    assert _refused(mica, sample, image_format="raw").code == "truncated"
    sample.write_bytes(packed[:MIB] + bytes(64) + packed[MIB + 64 :])
    assert "damaged" in str(_refused(mica, sample, image_format="raw"))
    # A disk that only qemu-img can find to be broken: compressed grains that aren't.
    vmdk = tmp_path / "sample.vmdk"
    _run(
        *(qemu_img, "convert", "-f", "raw", "-O", "vmdk"),
        *("-o", "subformat=streamOptimized", raw, vmdk),
    )
    damaged = bytearray(vmdk.read_bytes())
    damaged[2 * MIB : 2 * MIB + 4096] = bytes(4096)
    sample.write_bytes(damaged)
    assert "its data are damaged" in str(_refused(mica, sample))
    # 64 GiB of zeros in 64 MB end at the free space, or when somebody has enough of them.
    bomb = gzip.compress(bytes(64 * MIB), 9)
    with sample.open("wb") as file:
        for _ in range(1024):
            file.write(bomb)
    outcome = mica.upload_image("no", sample, datastore="main", image_format="raw", wait_s=0.0)
    assert isinstance(outcome, Operation)
    time.sleep(0.5)
    mica.cancel(outcome.id)
    with pytest.raises(OperationFailedError):
        mica.wait(outcome)


def test_volumes_go_out_as_they_are_and_as_images(
    host: HostedMica, mica: Mica, tmp_path: Path, qemu_img: Path, raw: Path
) -> None:
    mica.upload_image("base", raw, datastore="main", image_format="raw")
    spec = VolumeSpec(datastore="main", size_bytes=32 * MIB, source_image="base")
    mica.wait(mica.create_volume("disk", spec))
    mica.download_volume("disk", tmp_path / "disk.qcow2")
    _run(qemu_img, "compare", "-f", "raw", "-F", "qcow2", raw, tmp_path / "disk.qcow2")
    capture = ImageCapture(volume="disk", compress=True)
    mica.wait(mica.capture_image("small", capture))
    small = mica.download_image("small", tmp_path / "small.qcow2")
    assert small.status.origin is not None
    assert small.status.origin.volume == "disk"
    _run(qemu_img, "compare", "-f", "raw", "-F", "qcow2", raw, tmp_path / "small.qcow2")
    mica.wait(mica.capture_image("flat", ImageCapture(volume="disk", format=ImageFormat.RAW)))
    mica.download_image("flat", tmp_path / "flat.raw")
    assert (tmp_path / "flat.raw").read_bytes() == DATA + bytes(8 * MIB)
    raw_spec = VolumeSpec(datastore="main", size_bytes=MIB, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("empty", raw_spec))
    with pytest.raises(RefusedError, match="compressed"):
        mica.capture_image(
            "no", ImageCapture(volume="empty", format=ImageFormat.RAW, compress=True)
        )


def test_what_holds_no_data_is_neither_sent_nor_written(mica: Mica, tmp_path: Path) -> None:
    """A volume of 64 GiB with three pieces of data goes out in seconds, as a file with holes."""
    size = 64 << 30
    spec = VolumeSpec(datastore="main", size_bytes=size, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("vast", spec))
    places = (0, 5 << 30, size - 4096)
    for place in places:
        mica.write_volume("vast", place, len(PIECE), iter([PIECE]))
    told: list[int] = []
    began = time.monotonic()
    mica.download_volume("vast", tmp_path / "vast.raw", on_bytes=told.append)
    assert time.monotonic() - began < 20
    info = (tmp_path / "vast.raw").stat()
    assert info.st_size == sum(told) == size
    assert info.st_blocks * 512 < 64 * MIB
    with (tmp_path / "vast.raw").open("rb") as file:
        for place in places:
            file.seek(place)
            assert file.read(4096) == PIECE
    small = VolumeSpec(datastore="main", size_bytes=512 * MIB, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("less-vast", small))
    mica.write_volume("less-vast", 100 * MIB, len(PIECE), iter([PIECE]))
    capture = ImageCapture(volume="less-vast", format=ImageFormat.RAW)
    mica.wait(mica.capture_image("less-vast", capture))
    mica.download_image("less-vast", tmp_path / "again.raw")
    assert (tmp_path / "again.raw").stat().st_size == 512 * MIB
    assert (tmp_path / "again.raw").stat().st_blocks * 512 < 16 * MIB


def test_ranges_of_an_image(mica: Mica, raw: Path) -> None:
    mica.upload_image("base", raw, datastore="main", image_format="raw")
    path = "/v1/images/base/data"
    with checked_client(mica) as client:
        head = client.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(DATA)))
        assert head.headers["accept-ranges"] == "bytes"
        etag = head.headers["etag"]
        middle = client.get(path, headers={"range": f"bytes={MIB}-{MIB + 99}"})
        assert (middle.status_code, middle.content) == (206, DATA[MIB : MIB + 100])
        assert middle.headers["content-range"] == f"bytes {MIB}-{MIB + 99}/{len(DATA)}"
        tail = client.get(path, headers={"range": "bytes=-7", "if-range": etag})
        assert (tail.status_code, tail.content) == (206, DATA[-7:])
        changed = client.get(path, headers={"range": "bytes=-7", "if-range": '"other"'})
        assert (changed.status_code, changed.content) == (200, DATA)
        several = client.get(path, headers={"range": "bytes=0-1,5-6"})
        assert (several.status_code, len(several.content)) == (200, len(DATA))
        behind = client.get(path, headers={"range": f"bytes={len(DATA)}-"})
        assert behind.status_code == 416
        assert behind.headers["content-range"] == f"bytes */{len(DATA)}"
        assert client.head("/v1/images/nothing/data").status_code == 404
        with client.stream("GET", path) as _:
            pass
