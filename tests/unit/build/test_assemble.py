"""Archives for the kernel, microcode, command line: pure parts of the assembly."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from appliance_build.assemble.initrd import check_kernel, early_name
from appliance_build.assemble.microcode import intel_updates, merge_intel, write_microcode
from appliance_build.release.version import release_version
from firmware.boot_chain.command_line import kernel_command_line
from vmkernel.version import __version__


def update(signature: int, revision: int, flags: int = 1, filler: bytes = b"\xaa") -> bytes:
    total = 2048
    header = struct.pack("<IiIIIIIII12x", 1, revision, 0, signature, 0, 1, flags, total - 48, total)
    return header + filler * (total - len(header))


def test_intel_files_are_taken_apart() -> None:
    parts = list(intel_updates(update(0x806F8, 3) + update(0x806F7, 5)))
    assert [(processor, revision) for processor, revision, _ in parts] == [
        ((0x806F8, 1), 3),
        ((0x806F7, 1), 5),
    ]


def test_shared_and_older_updates_are_left_out() -> None:
    old, new, other = update(1, 3), update(1, 4), update(2, 1)
    merged = merge_intel([old + other, new, new + other])
    assert merged == new + other


@pytest.mark.parametrize("data", [b"\0" * 2048, b"x", update(1, 1)[:-1]])
def test_what_is_no_microcode_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="microcode"):
        list(intel_updates(data))


def test_a_kernel_that_init_cannot_start_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config-1"
    config.write_text("CONFIG_EROFS_FS_BACKED_BY_FILE=y\nCONFIG_EROFS_FS_ZIP_ZSTD=y\n")
    check_kernel(config)
    config.write_text("CONFIG_EROFS_FS_BACKED_BY_FILE=y\n# CONFIG_EROFS_FS_ZIP_ZSTD is not set\n")
    with pytest.raises(ValueError, match=r"config-1: the kernel lacks CONFIG_EROFS_FS_ZIP_ZSTD$"):
        check_kernel(config)


def test_early_modules_lie_in_their_order() -> None:
    assert early_name(3, Path("/x/a-b.ko.xz")) == "modules/03-a-b.ko"


def test_an_archive_is_the_same_each_time_and_readable(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content\n")
    entries = [
        CpioEntry.folder("bin"),
        CpioEntry.file("bin/tool", source, 0o755),
        CpioEntry.bytes("note", b"abc"),
    ]
    for name in ("one", "two"):
        write_cpio(tmp_path / name, entries, epoch=1000)
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    assert len(data) % 512 == 0
    assert data.startswith(b"070701")
    assert data.count(b"070701") == 4
    assert b"TRAILER!!!" in data


def test_the_microcode_archive_has_one_file_a_vendor(tmp_path: Path) -> None:
    files = []
    for name, content in {
        "intel-ucode/06-01-01": update(1, 1),
        "amd-ucode/microcode_amd.bin": b"AMD",
    }.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(content)
        files.append(path)
    write_microcode(tmp_path / "early", files)
    data = (tmp_path / "early").read_bytes()
    assert b"kernel/x86/microcode/AuthenticAMD.bin" in data
    assert b"kernel/x86/microcode/GenuineIntel.bin" in data


def test_the_command_line_is_one_line_with_reasons() -> None:
    text = kernel_command_line()
    assert "\n" not in text
    assert "console=ttyS0" in text
    assert "root=" not in text.replace("rootfstype=", "")


def test_the_version_is_read_without_importing() -> None:
    assert release_version() == __version__


def test_the_cpio_tool_reads_our_archives(tmp_path: Path) -> None:
    write_cpio(tmp_path / "a", [CpioEntry.bytes("note", b"abc")], epoch=5)
    try:
        done = subprocess.run(
            ["cpio", "-it", "--quiet"],
            input=(tmp_path / "a").read_bytes(),
            capture_output=True,
            check=True,
            timeout=20,
        )
    except FileNotFoundError:
        pytest.skip("no cpio on this host")
    assert done.stdout == b"note\n"
