"""Saving and loading a guest's memory over QMP."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from tests.unit.vm.fake_qemu import FakeQemu, FakeQmp
from vmkernel.devices import Accelerator
from vmkernel.qemu import QmpCommandError, RunState, memory_image
from vmkernel.vm.launch.launcher import LaunchRequest, RunFolder


def _qmp(*arguments: str) -> FakeQmp:
    request = LaunchRequest(
        vm_id="web",
        folder=RunFolder(Path("/nowhere")),
        arguments=arguments,
        fds=(),
        uid=1,
        accelerator=Accelerator.TCG,
        cpu_count=1,
        memory_max_bytes=1,
        read_only=(),
        read_write=(),
        log=-1,
    )
    qemu = FakeQemu(request, [], status=RunState.PAUSED)
    ours, theirs = socket.socketpair()
    theirs.close()
    return FakeQmp(qemu, ours)


async def _save(qmp: FakeQmp, path: Path, seen: list[tuple[int, int]]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        await memory_image.save(qmp, fd, on_progress=lambda *figures: seen.append(figures))
    finally:
        os.close(fd)


@on_loop
async def test_a_round(tmp_path: Path) -> None:
    path, seen = tmp_path / "image", list[tuple[int, int]]()
    qmp = _qmp()
    qmp.qemu.memory = b"knows something"
    await _save(qmp, path, seen)
    assert seen[-1] == (100, 100)
    assert qmp.qemu.fdsets == {}
    other = _qmp("-incoming", "defer")
    fd = os.open(path, os.O_RDONLY)
    await memory_image.load(other, fd)
    os.close(fd)
    assert other.qemu.memory == b"knows something"
    assert other.qemu.status is RunState.PAUSED


@on_loop
async def test_a_damaged_image_is_refused_with_qemus_reason(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"rubbish")
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(QmpCommandError, match="not a state"):
        await memory_image.load(_qmp("-incoming", "defer"), fd)
    os.close(fd)


@on_loop
async def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    qmp = _qmp()
    qmp.qemu.replies["query-migrate"] = {"status": "failed", "error-desc": "No space left"}
    with pytest.raises(QmpCommandError, match="No space left"):
        await _save(qmp, tmp_path / "image", [])


@on_loop
async def test_cancelling_ends_qemus_work(tmp_path: Path) -> None:
    qmp = _qmp()
    qmp.qemu.slow = True
    work = asyncio.create_task(_save(qmp, tmp_path / "image", []))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert ("migrate_cancel", {}) in qmp.qemu.commands
    assert qmp.qemu.status is RunState.PAUSED
