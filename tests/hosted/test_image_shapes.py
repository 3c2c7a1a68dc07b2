"""Every shape of disk that qemu-img makes becomes an image with the same data, or is refused with
what to do; a disk that nothing has closed is completed from its log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance_build.tools.sandbox import loader_argv, qemu_environment
from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework import inputs
from tests.framework.image_oracle import differences
from tests.framework.vhdx import with_log_in_use, with_zeros_in_log
from vmkernel.model import Image, SourceFormat

pytestmark = pytest.mark.usefixtures("no_images_left")
MIB = 1 << 20
DATA = os.urandom(2 * MIB) + bytes(5 * MIB) + os.urandom(MIB)
"""Eight times a MiB, so that every format can have exactly that size."""

TAKEN = {
    "qcow2-v2": ("qcow2", "compat=0.10"),
    "qcow2-small-clusters": ("qcow2", "cluster_size=512"),
    "qcow2-large-clusters": ("qcow2", "cluster_size=2M"),
    "qcow2-zstd": ("qcow2", "compression_type=zstd"),
    "qcow2-subclusters": ("qcow2", "extended_l2=on,cluster_size=128k"),
    "qcow2-lazy": ("qcow2", "lazy_refcounts=on"),
    "qcow2-refcounts-1-bit": ("qcow2", "refcount_bits=1"),
    "qcow2-refcounts-64-bits": ("qcow2", "refcount_bits=64"),
    "qcow2-preallocated": ("qcow2", "preallocation=full"),
    "vmdk-sparse": ("vmdk", "subformat=monolithicSparse"),
    "vmdk-zeroed-grains": ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    "vmdk-lsilogic": ("vmdk", "adapter_type=lsilogic,hwversion=13"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vhd-dynamic": ("vpc", "subformat=dynamic"),
    "vhd-dynamic-exact": ("vpc", "subformat=dynamic,force_size=on"),
    "vhd-fixed": ("vpc", "subformat=fixed"),
    "vhd-fixed-exact": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx-dynamic": ("vhdx", "subformat=dynamic"),
    "vhdx-fixed": ("vhdx", "subformat=fixed"),
    "vhdx-zeroed-blocks": ("vhdx", "block_state_zero=on,block_size=1M"),
    "vdi-dynamic": ("vdi", "static=off"),
    "vdi-static": ("vdi", "static=on"),
    "parallels": ("parallels", "cluster_size=64k"),
}

REFUSED = {
    "vmdk-flat": ("vmdk", "subformat=monolithicFlat", "only a descriptor"),
    "vmdk-2gb-sparse": ("vmdk", "subformat=twoGbMaxExtentSparse", "only a descriptor"),
    "vmdk-2gb-flat": ("vmdk", "subformat=twoGbMaxExtentFlat", "only a descriptor"),
    "qcow2-luks": ("qcow2", "encrypt.format=luks,encrypt.key-secret=key", "encrypted"),
    "luks": ("luks", "key-secret=key", "encrypted by LUKS"),
    "qcow": ("qcow", "", "version 1 is not known"),
    "qed": ("qed", "", "a QED file; convert it"),
}


def _tool(program: str, *words: str | Path) -> None:
    tree = inputs.tools()
    subprocess.run(
        [*loader_argv(tree, program), *map(str, words)],
        env=qemu_environment(tree),
        check=True,
        capture_output=True,
        timeout=120,
    )


def _converted(raw: Path, target: Path, qemu_name: str, options: str) -> Path:
    words: list[str | Path] = ["-o", options] if options else []
    if "key" in options:
        words += ["--object", "secret,id=key,data=abc123"]
    _tool("qemu-img", "convert", "-f", "raw", "-O", qemu_name, *words, raw, target)
    return target


def _data_of(mica: Mica, image: object, folder: Path) -> bytes:
    assert isinstance(image, Image)
    back = folder / "back"
    mica.download_image(image.id, back)
    _tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", back, folder / "back.raw")
    return (folder / "back.raw").read_bytes()


@pytest.mark.parametrize("name", TAKEN)
def test_what_qemu_img_makes_is_taken(mica: Mica, tmp_path: Path, raw: Path, name: str) -> None:
    sample = _converted(raw, tmp_path / "sample", *TAKEN[name])
    assert differences(sample.read_bytes()) == []
    image = mica.upload_image("shape", sample, datastore="main")
    data = _data_of(mica, image, tmp_path)
    assert data[: len(DATA)] == DATA
    assert not any(data[len(DATA) :])  # a VHD's size is one of cylinders
    assert isinstance(image, Image)
    assert image.status.virtual_size_bytes == len(data)


CUT_OFF = [
    name for name in TAKEN if name not in ("vhd-fixed", "vhd-fixed-exact", "qcow2-large-clusters")
]
"""Without what has no header at its beginning, and one whose last cluster is most of the file: what
is missing of the last cluster alone may be nothing that was ever written."""


@pytest.mark.parametrize("name", CUT_OFF)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_what_was_cut_off_is_refused(
    mica: Mica, tmp_path: Path, raw: Path, name: str, part: float
) -> None:
    sample = _converted(raw, tmp_path / "sample", *TAKEN[name])
    os.truncate(sample, int(sample.stat().st_size * part))
    with pytest.raises(RefusedError, match=r"cut off|damaged"):
        mica.upload_image("no", sample, datastore="main")


@pytest.mark.parametrize("missing", [1, 512, 4096, 60_000])
@pytest.mark.parametrize("name", ["qcow2", "vmdk", "vdi"])
def test_a_last_cluster_that_is_cut_off_has_lost_data(
    mica: Mica, tmp_path: Path, name: str, missing: int
) -> None:
    """qemu-img itself finds no error, and reads zeros for what is missing."""
    whole = tmp_path / "whole"
    whole.write_bytes((bytes(range(1, 256)) * 4113)[: 1 << 20])
    sample = _converted(whole, tmp_path / "sample", name, "")
    os.truncate(sample, sample.stat().st_size - missing)
    with pytest.raises(RefusedError, match=r"cut off|damaged"):
        mica.upload_image("no", sample, datastore="main")


@pytest.mark.parametrize("missing", [512, 4096, 60_000])
@pytest.mark.parametrize("name", ["qcow2", "vmdk"])
def test_a_last_cluster_without_its_padding_is_whole(
    mica: Mica, tmp_path: Path, name: str, missing: int
) -> None:
    """The disk ends inside its last cluster: what lies behind its end is no part of it."""
    whole = tmp_path / "whole"
    whole.write_bytes((bytes(range(1, 256)) * 4200)[: (1 << 20) + 4096])
    sample = _converted(whole, tmp_path / "sample", name, "")
    os.truncate(sample, sample.stat().st_size - missing)
    image = mica.upload_image("shape", sample, datastore="main")
    assert _data_of(mica, image, tmp_path) == whole.read_bytes()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_says_what_to_do(
    mica: Mica, tmp_path: Path, raw: Path, name: str
) -> None:
    qemu_name, options, words = REFUSED[name]
    sample = _converted(raw, tmp_path / "sample.img", qemu_name, options)
    with pytest.raises(RefusedError, match=words):
        mica.upload_image("no", sample, datastore="main")


def test_one_of_the_files_of_a_vmdk_is_no_disk(mica: Mica, tmp_path: Path, raw: Path) -> None:
    _converted(raw, tmp_path / "disk.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse")
    with pytest.raises(RefusedError, match=r"one of the files of a disk.*streamOptimized"):
        mica.upload_image("no", tmp_path / "disk-s001.vmdk", datastore="main")


def test_a_qcow2_with_bitmaps_and_snapshots_is_taken(mica: Mica, tmp_path: Path, raw: Path) -> None:
    sample = _converted(raw, tmp_path / "sample", "qcow2", "")
    _tool("qemu-img", "bitmap", "--add", "-f", "qcow2", sample, "backup")
    _tool("qemu-img", "snapshot", "-c", "before", sample)
    image = mica.upload_image("shape", sample, datastore="main")
    assert _data_of(mica, image, tmp_path) == DATA


# --- VHDX logs ----------------------------------------------------------------------------------


def _unclosed_vhdx(folder: Path) -> tuple[Path, bytes]:
    """A VHDX whose last writes are found through its log alone, and what is in it."""
    file = folder / "unclosed.vhdx"
    _tool("qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", file, "32M")
    before = file.read_bytes()
    writes = ("write -P 0x41 0 64k", "write -P 0x42 5M 1M", "write -P 0x43 31M 4k")
    commands = [word for write in writes for word in ("-c", write)]
    _tool("qemu-io", "-f", "vhdx", *commands, file)
    file.write_bytes(with_log_in_use(before, file.read_bytes()))
    data = bytearray(32 * MIB)
    for octet, at, length in ((0x41, 0, 64 << 10), (0x42, 5 * MIB, MIB), (0x43, 31 * MIB, 4096)):
        data[at : at + length] = bytes([octet]) * length
    return file, bytes(data)


def _whole(mica: Mica, file: Path) -> object:
    return mica.upload_image("unclosed", file, datastore="main")


def _in_parts(mica: Mica, file: Path) -> object:
    return mica.resumable_upload("unclosed", file, datastore="main")


@pytest.mark.parametrize("send", [_whole, _in_parts])
def test_a_vhdx_that_nothing_closed_is_completed_from_its_log(
    mica: Mica, tmp_path: Path, send: Callable[[Mica, Path], object]
) -> None:
    file, data = _unclosed_vhdx(tmp_path)
    image = send(mica, file)
    assert isinstance(image, Image)
    assert image.status.origin is not None
    assert image.status.origin.format is SourceFormat.VHDX
    assert _data_of(mica, image, tmp_path) == data


def test_a_log_that_is_torn_is_refused_or_ignored_as_its_checksum_says(
    mica: Mica, tmp_path: Path
) -> None:
    """An entry without its checksum was never written ([MS-VHDX] 2.3.2): what was before counts."""
    file, _ = _unclosed_vhdx(tmp_path)
    torn = bytearray(file.read_bytes())
    for at in range(MIB, 2 * MIB, 4096):
        if torn[at : at + 4] == b"loge":
            torn[at + 60] ^= 0xFF
    file.write_bytes(torn)
    image = mica.upload_image("unclosed", file, datastore="main")
    assert _data_of(mica, image, tmp_path) == bytes(32 * MIB)


def test_a_log_that_writes_without_end_stops_at_its_bound(mica: Mica, tmp_path: Path) -> None:
    """A range of zeros of many GiB takes one descriptor of 32 octets."""
    file, _ = _unclosed_vhdx(tmp_path)
    file.write_bytes(with_zeros_in_log(file.read_bytes(), 1 << 40))
    with pytest.raises(RefusedError, match="can't be completed from its log"):
        mica.upload_image("no", file, datastore="main")
