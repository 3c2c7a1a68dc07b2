"""The real qemu-img on what a stranger's datastore may hold: it writes no more than was set aside,
opens nothing but what it was given, and never runs as root where we are root."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.framework.hosted import qemu_programs
from vmkernel.host.errors import CommandError, HostError
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.runner import Runner
from vmkernel.host.worker import Workers
from vmkernel.model import ErrorCode, MicaError
from vmkernel.storage.formats.open_disk import verify_open_disk

pytestmark = pytest.mark.timeout(300)

_CLUSTER = 1 << 16
_WORKER, _VM = 701, 100_007


def _told(part: float) -> None:
    del part


def _run(tmp_path: Path, story: Callable[[QemuImg], Awaitable[None]], **given: object) -> None:
    programs = qemu_programs(tmp_path)
    image = QemuImg(Workers(Runner(programs)), verify_open_disk, **given)  # type: ignore[arg-type]
    asyncio.run(story(image))  # type: ignore[arg-type]


def bomb(empty: bytes) -> bytes:
    """An empty qcow2 of ours, all of whose clusters become one and the same."""
    data = bytearray(empty)
    entries, l1 = struct.unpack_from(">IQ", data, 36)
    l2 = -(-len(data) // _CLUSTER) * _CLUSTER
    data = data.ljust(l2 + 2 * _CLUSTER, b"\0")
    for number in range(entries):
        struct.pack_into(">Q", data, l1 + 8 * number, l2)
    for number in range(_CLUSTER // 8):
        struct.pack_into(">Q", data, l2 + 8 * number, l2 + _CLUSTER)
    data[l2 + _CLUSTER :] = b"B" * _CLUSTER
    return bytes(data)


def with_data_file(empty: bytes, name: str) -> bytes:
    """The same, whose data are in another file."""
    data = bytearray(empty)
    struct.pack_into(">Q", data, 72, 1 << 2)
    (header,) = struct.unpack_from(">I", data, 100)
    extension = struct.pack(">II", 0x44415441, len(name)) + name.encode()
    data[header : header + len(extension) + 16] = extension.ljust(len(extension) + 16, b"\0")
    return bytes(data)


async def _empty(image: QemuImg, path: Path, size_bytes: int) -> bytes:
    path.touch()
    await image.create_qcow2(path, size_bytes)
    return path.read_bytes()


def test_a_copy_stops_at_what_was_set_aside(tmp_path: Path) -> None:
    async def story(image: QemuImg) -> None:
        source, target = tmp_path / "bomb.qcow2", tmp_path / "copy.qcow2"
        source.write_bytes(bomb(await _empty(image, source, 8 << 30)))
        assert source.stat().st_size < 1 << 20
        assert await image.measure(source, "qcow2") > 8 << 30
        target.touch()
        with pytest.raises(CommandError) as caught:
            await image.convert(
                source, "qcow2", target, "qcow2", file_bytes=8 << 20, on_fraction=_told
            )
        assert caught.value.problem.code is ErrorCode.INSUFFICIENT_SPACE
        assert str(tmp_path) not in caught.value.problem.detail
        assert "qemu" not in caught.value.problem.detail
        assert target.stat().st_size <= 8 << 20

    _run(tmp_path, story)


def test_no_disk_is_opened_that_names_another_file(tmp_path: Path) -> None:
    async def story(image: QemuImg) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"of the host" * 100)
        source, target = tmp_path / "evil.qcow2", tmp_path / "copy.raw"
        source.write_bytes(with_data_file(await _empty(image, source, 1 << 20), str(secret)))
        target.touch()
        for work in (
            image.snapshots(source),
            image.measure(source, "qcow2"),
            image.check(source, "qcow2", repair="all"),
            image.convert(source, "qcow2", target, "raw", file_bytes=1 << 20, on_fraction=_told),
            image.resize(source, "qcow2", 2 << 20, shrink=False),
            image.snapshot("-c", "s", source),
        ):
            with pytest.raises(MicaError, match="another file"):
                await work
        assert target.read_bytes() == b""
        for odd in ("link", "pipe", "second"):
            path = tmp_path / f"{odd}.qcow2"
            if odd == "link":
                path.symlink_to(secret)
            elif odd == "pipe":
                os.mkfifo(path)
            else:
                path.hardlink_to(secret)
            with pytest.raises((HostError, MicaError)):
                await image.snapshot("-c", "s", path)
        assert secret.read_bytes() == b"of the host" * 100

    _run(tmp_path, story)


def test_what_is_damaged_is_told_in_words(tmp_path: Path) -> None:
    async def story(image: QemuImg) -> None:
        path, target = tmp_path / "x.qcow2", tmp_path / "y.qcow2"
        data = bytearray(await _empty(image, path, 1 << 30))
        (l1,) = struct.unpack_from(">Q", data, 40)
        struct.pack_into(">Q", data, l1, 0x50200)  # no cluster begins there
        path.write_bytes(data)
        target.touch()
        with pytest.raises(CommandError) as caught:
            await image.convert(
                path, "qcow2", target, "qcow2", file_bytes=1 << 20, on_fraction=_told
            )
        detail = caught.value.problem.detail
        assert "damaged" in detail
        assert "/proc" not in detail
        assert "qemu-img" not in detail
        report = await image.check(path, "qcow2", repair=None)
        assert report.corruptions

    _run(tmp_path, story)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_it_never_runs_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who it would become; it stays ourselves here, because the tools may be closed to others."""
    users: list[int | None] = []
    real = Runner.run

    async def run(self: Runner, *words: object, **named: object) -> object:
        users.append(named.pop("user"))  # type: ignore[arg-type]
        return await real(self, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "run", run)

    async def story(image: QemuImg) -> None:
        path = tmp_path / "v.qcow2"
        await _empty(image, path, 1 << 20)
        assert path.stat().st_uid == _WORKER
        for owner, mode, as_whom in (
            (0, 0o600, _WORKER),
            (33, 0o600, _WORKER),  # a system user's: it isn't run as that one either
            (_VM, 0o600, _VM),
            (0, 0o644, _WORKER),
        ):
            os.chown(path, owner, owner)
            path.chmod(mode)
            assert await image.snapshots(path) == frozenset()
            await image.snapshot("-c", "s", path)
            await image.snapshot("-d", "s", path)
            assert path.stat().st_uid == as_whom
        # A VM's disk on a base of another one's, into a new file of root's.
        base, target = tmp_path / "base.qcow2", tmp_path / "new.qcow2"
        await _empty(image, base, 1 << 20)
        os.chown(base, _VM + 1, _VM + 1)
        os.chown(path, _VM, _VM)
        base.chmod(0o600)
        path.chmod(0o600)
        target.touch(mode=0o600)
        await image.convert(
            path,
            "qcow2",
            target,
            "qcow2",
            file_bytes=1 << 21,
            on_fraction=_told,
            chain=[(base, "qcow2")],
        )
        assert target.stat().st_uid == _VM
        assert (base.stat().st_uid, base.stat().st_mode & 0o777) == (_VM + 1, 0o644)
        assert path.stat().st_mode & 0o777 == 0o600

    _run(tmp_path, story, uid=_WORKER, vm_uids=range(100_000, 165_536))
    assert users
    assert set(users) <= {_WORKER, _VM}
