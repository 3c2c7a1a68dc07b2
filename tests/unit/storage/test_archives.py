"""Archives and CDs: named for what they are, whatever they are said to be."""

from __future__ import annotations

import bz2
import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.storage.samples import iso, qcow2
from tests.unit.storage.world import image_spec
from vmkernel.model import ImageFormat, MicaError, SourceFormat
from vmkernel.storage.images.formats.archives import archive_of
from vmkernel.storage.images.formats.base import FormatError, MemoryData
from vmkernel.storage.images.formats.inspection import compression_of, format_of, prove_source
from vmkernel.storage.intake import refuse_early

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


SAMPLES: dict[str, tuple[bytes, str]] = {
    "gnu tar": (_tar(tarfile.GNU_FORMAT), "a tar archive"),
    "ustar": (_tar(tarfile.USTAR_FORMAT), "a tar archive"),
    "pax": (_tar(tarfile.PAX_FORMAT, "dïsk.raw"), "a tar archive"),
    "old tar": (_old_tar(), "a tar archive"),
    "ova": (_tar(tarfile.USTAR_FORMAT, "web.ovf"), "an OVA"),
    "zip": (_zip(), "a zip archive"),
    "bzip2": (bz2.compress(DISK), "bzip2"),
    "empty bzip2": (bz2.compress(b""), "bzip2"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(600), "a 7z archive"),
    "rar": (b"Rar!\x1a\x07\x01\0" + bytes(600), "a rar archive"),
    "cab": (b"MSCF\0\0\0\0" + bytes(600), "a cabinet"),
    "wim": (b"MSWIM\0\0\0" + bytes(600), "a Windows image"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(600), "lz4"),
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
        prove_source(format_of(MemoryData(data), declared), MemoryData(data))
    if declared is SourceFormat.RAW and name != "dmg":
        with pytest.raises(MicaError, match=what):
            refuse_early(image_spec(data, ImageFormat.RAW), data[: 1 << 16])


@pytest.mark.parametrize("tool", ["7z a -bd", "rar a", "gcab -c", "lz4", "lzip"])
def test_archives_of_real_tools(tmp_path: Path, tool: str) -> None:
    words = tool.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    (tmp_path / "disk").write_bytes(DISK)
    made = tmp_path / "made"
    call = [*words, "-c", "disk"] if words[0] in ("lz4", "lzip") else [*words, "made", "disk"]
    done = subprocess.run(call, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    data = next((p for p in tmp_path.glob("made*")), made)
    packed = data.read_bytes() if data.exists() else done.stdout
    with pytest.raises(FormatError, match=words[0]):
        format_of(MemoryData(packed), None)


@pytest.mark.parametrize("data", [DISK, iso(), qcow2(), bytes(4096), b"\x7fELF" + bytes(600)])
def test_a_disk_is_none(data: bytes) -> None:
    assert archive_of(MemoryData(data)) is None
    assert archive_of(MemoryData(data[:100])) is None


def test_a_wrong_declaration_says_what_it_is() -> None:
    from vmkernel.model import Compression

    with pytest.raises(FormatError, match="not compressed by gzip: they are a zip archive"):
        compression_of(_zip()[:1024], Compression.GZIP, None)


# --- CDs ----------------------------------------------------------------------------------------


def _genisoimage(folder: Path, target: Path) -> None:
    subprocess.run(
        ["genisoimage", "-quiet", "-o", target, folder], check=True, capture_output=True, timeout=60
    )


def _hybrid(folder: Path, target: Path) -> None:
    subprocess.run(
        ["genisoimage", "-quiet", "-hfs", "-udf", "-o", target, folder],
        check=True,
        capture_output=True,
        timeout=60,
    )


def _el_torito(folder: Path, target: Path) -> None:
    (folder / "boot.img").write_bytes(bytes(2048))
    subprocess.run(
        ["genisoimage", "-quiet", "-b", "boot.img", "-no-emul-boot", "-o", target, folder],
        check=True,
        capture_output=True,
        timeout=60,
    )


def _udf(folder: Path, target: Path) -> None:
    del folder
    with target.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(
        ["mkudffs", "--blocksize=2048", target], check=True, capture_output=True, timeout=60
    )


@pytest.mark.parametrize(
    ("tool", "make"),
    [
        ("genisoimage", _genisoimage),
        ("genisoimage", _hybrid),
        ("genisoimage", _el_torito),
        ("mkudffs", _udf),
    ],
)
def test_cds_of_real_tools(tmp_path: Path, tool: str, make: Callable[[Path, Path], None]) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "readme").write_text("hello")
    target = tmp_path / "cd.iso"
    make(folder, target)
    data = MemoryData(target.read_bytes())
    assert format_of(data, None) is SourceFormat.ISO
    assert prove_source(SourceFormat.ISO, data) == target.stat().st_size


@pytest.mark.parametrize(
    ("at", "magic"), [(0x8001, b"BEA01"), (0x400, b"BD"), (0x400, b"H+"), (0x200, b"PM")]
)
def test_cds_that_are_not_iso_9660_are_taken(at: int, magic: bytes) -> None:
    data = bytearray(64 * 2048 + 100)
    data[at : at + len(magic)] = magic
    assert prove_source(SourceFormat.ISO, MemoryData(bytes(data))) == 65 * 2048
