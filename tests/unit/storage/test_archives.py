"""Archives and CDs: named for what they are, whatever they are said to be."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.unit.storage.samples import iso, qcow2
from tests.unit.storage.world import image_spec
from vmkernel.model import ImageFormat, MicaError, SourceFormat
from vmkernel.storage.formats.archives import archive_of
from vmkernel.storage.formats.base import FormatError, MemoryData
from vmkernel.storage.formats.inspection import compression_of, format_of, verify_source
from vmkernel.storage.images.import_pipeline import refuse_early

PACKED = Path(__file__).parents[1] / "samples" / "packed"
DISK = bytes(0x1FE) + b"\x55\xaa" + bytes(1 << 20)


def _tar(form: int, name: str = "disk.raw") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        member = tarfile.TarInfo(name)
        member.size = len(DISK)
        tar.addfile(member, io.BytesIO(DISK))
    return out.getvalue()


def _old_tar() -> bytes:
    """As before 1988: without `ustar`."""
    data = bytearray(_tar(tarfile.USTAR_FORMAT))
    data[257:500] = bytes(243)
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("disk.raw", DISK)
    return out.getvalue()


def _packed(name: str) -> bytes:
    return (PACKED / name).read_bytes()


def _rar4() -> bytes:
    """A marker block and an archive header, by RAR 4's technote.txt."""
    header = b"\x73\0\0" + (13).to_bytes(2, "little") + bytes(6)
    return b"Rar!\x1a\x07\0" + (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + header


def _rar5() -> bytes:
    """A signature, a main header and the end, by the RAR 5.0 archive format."""
    headers = (b"\x03\x01\0\0", b"\x03\x05\0\0")
    blocks = (zlib.crc32(header).to_bytes(4, "little") + header for header in headers)
    return b"Rar!\x1a\x07\x01\0" + b"".join(blocks)


SAMPLES: dict[str, tuple[bytes, str]] = {
    "gnu tar": (_tar(tarfile.GNU_FORMAT), "a tar archive"),
    "ustar": (_tar(tarfile.USTAR_FORMAT), "a tar archive"),
    "pax": (_tar(tarfile.PAX_FORMAT, "dïsk.raw"), "a tar archive"),
    "old tar": (_old_tar(), "a tar archive"),
    "ova": (_tar(tarfile.USTAR_FORMAT, "web.ovf"), "an OVA"),
    "zip": (_zip(), "a zip archive"),
    "7z": (_packed("7zip.7z"), "a 7z archive"),
    "encrypted 7z": (_packed("7zip-encrypted.7z"), "a 7z archive"),
    "zip by 7-zip": (_packed("7zip.zip"), "a zip archive"),
    "wim": (_packed("7zip.wim"), "a Windows image"),
    "cab": (_packed("gcab.cab"), "a cabinet"),
    "compressed cab": (_packed("gcab-mszip.cab"), "a cabinet"),
    "rar 4": (_rar4(), "a rar archive"),
    "rar 5": (_rar5(), "a rar archive"),
    "lz4": (_packed("lz4.lz4"), "compressed by lz4"),
    "old lz4": (_packed("lz4-legacy.lz4"), "compressed by lz4"),
    "lzip": (_packed("lzip.lz"), "compressed by lzip"),
    "lzma": (_packed("xz.lzma"), "compressed by lzma"),
    "lzop": (_packed("lzop.lzo"), "compressed by lzop"),
    "compress": (_packed("compress.Z"), "compressed by compress"),
    "dmg": (bytes(4096) + b"koly\0\0\0\4" + bytes(504), "dmg"),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    "declared", [None, SourceFormat.RAW, SourceFormat.ISO, SourceFormat.QCOW2, SourceFormat.VMDK]
)
def test_an_archive_is_named_whatever_it_is_said_to_be(
    name: str, declared: SourceFormat | None
) -> None:
    data, what = SAMPLES[name]
    with pytest.raises(FormatError, match=what):
        verify_source(format_of(MemoryData(data), declared), MemoryData(data))
    if declared is SourceFormat.RAW and name != "dmg":
        with pytest.raises(MicaError, match=what):
            refuse_early(image_spec(data, ImageFormat.RAW), data[: 1 << 16])


@pytest.mark.parametrize("data", [DISK, iso(), qcow2(), bytes(4096), b"\x7fELF" + bytes(600)])
def test_a_disk_is_none(data: bytes) -> None:
    assert archive_of(MemoryData(data)) is None
    assert archive_of(MemoryData(data[:100])) is None


def test_a_wrong_declaration_says_what_it_is() -> None:
    from vmkernel.model import Compression

    with pytest.raises(FormatError, match="not compressed by gzip: they are a zip archive"):
        compression_of(_zip()[:1024], Compression.GZIP, None)


# --- CDs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(file.name for file in PACKED.glob("cd-*.iso.xz")))
def test_cds_of_real_tools(name: str) -> None:
    data = MemoryData(lzma.decompress(_packed(name)))
    assert format_of(data, None) is SourceFormat.ISO
    assert verify_source(SourceFormat.ISO, data) == data.size


@pytest.mark.parametrize(
    ("at", "magic"), [(0x8001, b"BEA01"), (0x400, b"BD"), (0x400, b"H+"), (0x200, b"PM")]
)
def test_cds_that_are_not_iso_9660_are_taken(at: int, magic: bytes) -> None:
    data = bytearray(64 * 2048 + 100)
    data[at : at + len(magic)] = magic
    assert verify_source(SourceFormat.ISO, MemoryData(bytes(data))) == 65 * 2048
