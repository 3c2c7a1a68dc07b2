"""`scons flash` against real block devices: loop devices, which the kernel makes of files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from appliance_build.builders import flash as module
from appliance_build.builders.flash import FlashError, FlashFailedError, FlashRefusedError, flash
from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs

MIB = 1 << 20
IMAGE_BYTES = 24 * MIB + 512


def _tool(*words: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def _loop(file: Path) -> Iterator[Path]:
    device = Path(_tool("losetup", "--find", "--show", file))
    try:
        yield device
    finally:
        _tool("losetup", "--detach", device)


@pytest.fixture
def loop() -> Iterator[Callable[[Path, int], Path]]:
    """Makes a loop device of a sparse file of some size."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("this machine gives us no loop devices (root and /dev/loop-control)")
    with ExitStack() as stack:

        def make(file: Path, size: int) -> Path:
            with file.open("wb") as created:
                created.truncate(size)
            return stack.enter_context(_loop(file))

        yield make


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "mica.img"
    path.write_bytes(os.urandom(IMAGE_BYTES))
    return path


Loop = Callable[[Path, int], Path]


def test_a_forced_device_is_written_read_back_and_compared(
    loop: Loop, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "disk"
    device = loop(file, 32 * MIB)
    with pytest.raises(FlashRefusedError, match=rf"not removable; FORCE={file} overrides"):
        flash(image, device, force_serial=None)
    with pytest.raises(FlashRefusedError, match="overrides"):
        flash(image, device, force_serial=str(device))
    assert file.stat().st_blocks == 0
    flash(image, device, force_serial=str(file))
    assert file.read_bytes()[:IMAGE_BYTES] == image.read_bytes()
    said = capfd.readouterr()
    assert "writing 100 %" in said.err
    assert "comparing 100 %" in said.err
    assert "is a Mica stick now" in said.out + said.err


def test_a_mounted_device_is_refused(loop: Loop, image: Path, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    device = loop(file, 32 * MIB)
    ToolsSandbox(inputs.tools(), writable=(tmp_path,)).run(["mkfs.ext4", "-q", file], timeout_s=60)
    place = tmp_path / "place"
    place.mkdir()
    _tool("mount", "-t", "ext4", device, place)
    try:
        with pytest.raises(FlashRefusedError, match=rf"is mounted at {place}"):
            flash(image, device, force_serial=None)
        # What is mounted stays so, whatever is said: the kernel itself refuses.
        with pytest.raises(FlashRefusedError, match="in use by another program"):
            flash(image, device, force_serial=str(file))
    finally:
        _tool("umount", place)
    assert file.read_bytes()[1080:1082] == b"\x53\xef"


def test_a_device_that_is_too_small_is_refused(loop: Loop, image: Path, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    device = loop(file, 16 * MIB)
    with pytest.raises(FlashRefusedError, match=f"the image needs {IMAGE_BYTES}"):
        flash(image, device, force_serial=str(file))
    assert file.stat().st_blocks == 0


def test_what_reads_back_wrong_is_reported(
    loop: Loop, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "disk"
    device = loop(file, 32 * MIB)
    place = 9 * MIB + 17
    compare = module._compare

    def after_damage(*arguments: Path | int) -> None:
        wrong = bytes([image.read_bytes()[place] ^ 1])
        with file.open("r+b") as opened:
            opened.seek(place)
            opened.write(wrong)
        compare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_compare", after_damage)
    with pytest.raises(FlashFailedError, match=rf"than was written at {place}; the stick"):
        flash(image, device, force_serial=str(file))


def test_a_device_that_shrinks_meanwhile_is_reported(
    loop: Loop, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a stick that claims more than it has."""
    file = tmp_path / "disk"
    device = loop(file, 32 * MIB)
    flushed = os.fdatasync
    count = 0

    def shrink(descriptor: int) -> None:
        nonlocal count
        flushed(descriptor)
        count += 1
        if count == 2:
            os.truncate(file, 12 * MIB)
            _tool("losetup", "--set-capacity", device)

    monkeypatch.setattr(os, "fdatasync", shrink)
    with pytest.raises(FlashFailedError, match=r"failed after 12582912 bytes: it holds less than"):
        flash(image, device, force_serial=str(file))


def test_a_device_that_fails_meanwhile_is_reported(loop: Loop, image: Path, tmp_path: Path) -> None:
    """Its file lies on a file system without room, so that the kernel's own writes fail."""
    place = tmp_path / "small"
    place.mkdir()
    with ExitStack() as stack:
        _tool("mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", place)
        stack.callback(_tool, "umount", "--lazy", place)
        file = place / "disk"
        device = loop(file, 32 * MIB)
        with pytest.raises(FlashError, match=r"failed after \d+ bytes: .*no working stick"):
            flash(image, device, force_serial=str(file))
