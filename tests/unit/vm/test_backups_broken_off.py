"""Backups that come to no good end: nothing of them stays, and the VM is as free as before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from tests.unit.vm.backup_story import SIZE, BackupStory, backups
from tests.unit.vm.fake_blocks import CLUSTER
from vmkernel import clock
from vmkernel.model import ErrorCode, MicaError, OperationState, VmAction, VmState
from vmkernel.qemu import QmpLostError
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.states import VmRequest

SOON_S = 10.0
"""By then a session whose QEMU is gone has been found out."""


async def ended(story: BackupStory, seconds: float = SOON_S) -> None:
    """The session has ended by itself."""
    await asyncio.sleep(seconds)
    assert story.service.list("web") == ()
    assert len(story.world.events("vm.backup-ended")) == 1


@pytest.mark.parametrize(
    "refused",
    [
        "blockdev-add",
        "nbd-server-start",
        "transaction",
        "blockdev-backup",
        "block-dirty-bitmap-add",
        "block-export-add",
    ],
)
@pytest.mark.parametrize("started", [True, False])
@on_loop
async def test_qemu_refuses_a_step(tmp_path: Path, refused: str, started: bool) -> None:
    async with backups(tmp_path, started=started) as story:
        if started:
            story.blocks.refuse = {refused}
        else:
            story.launcher.refuse = {refused}
        with pytest.raises(MicaError, match="refused") as caught:
            await story.begin(checkpoint="one")
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        story.nothing_is_left()
        assert story.blocks.checkpoints() == set(), "no checkpoint without its backup"
        story.launcher.refuse = set()
        if started:
            story.blocks.refuse = set()
            assert story.world.vms.inventory.get("web").status.state is VmState.RUNNING
        else:
            assert story.launcher.qemus == {}
        await story.end(await story.begin(checkpoint="one"))


@pytest.mark.parametrize("room", [0, 1])
@pytest.mark.parametrize("started", [True, False])
@on_loop
async def test_a_full_datastore(tmp_path: Path, room: int, started: bool) -> None:
    async with backups(tmp_path, started=started) as story:
        story.room = room
        with pytest.raises(MicaError, match="No space") as caught:
            await story.begin(checkpoint="one")
        assert caught.value.problem.code is ErrorCode.INSUFFICIENT_SPACE
        assert len(story.scratches) == room
        assert not any(path.exists() for path in story.scratches)
        assert story.service.list("web") == ()
        story.room = 100
        await story.end(await story.begin(checkpoint="one"))


@pytest.mark.parametrize("started", [True, False])
@on_loop
async def test_what_is_not_on_the_disks_cannot_be_kept(tmp_path: Path, started: bool) -> None:
    """The instant is made by then: it goes again, its checkpoint with it."""
    async with backups(tmp_path, started=started) as story:
        variables = story.world.storage.vms_folder("main") / "web" / "nvram.fd"
        variables.unlink(missing_ok=True)
        variables.mkdir()
        with pytest.raises(MicaError, match="can't be read"):
            await story.begin(checkpoint="one")
        story.nothing_is_left()
        assert story.blocks.checkpoints() == set()
        variables.rmdir()


@on_loop
async def test_a_client_that_gives_up_while_the_vm_is_busy(tmp_path: Path) -> None:
    """Its request is in the queue: it comes to its end, and what it made is taken away."""
    async with backups(tmp_path) as story:
        go_on = asyncio.Event()

        async def busy(_: RunningVm) -> None:
            await go_on.wait()

        work = asyncio.create_task(story.world.vms.inventory.use("web", VmRequest.OPERATE, busy))
        await story.world.quiet()
        begin = asyncio.create_task(story.begin(checkpoint="one"))
        await story.world.quiet()
        begin.cancel()
        await story.world.quiet()
        go_on.set()
        await work
        with pytest.raises(asyncio.CancelledError):
            await begin
        assert "transaction" in [name for name, _ in story.world.qemu().commands]
        story.nothing_is_left()
        assert story.blocks.checkpoints() == set()


@on_loop
async def test_a_client_that_gives_up_while_a_qemu_starts_for_it(tmp_path: Path) -> None:
    async with backups(tmp_path, started=False) as story:
        begin = asyncio.create_task(story.begin())
        while "web" not in story.launcher.qemus:  # noqa: ASYNC110 - step by step
            await asyncio.sleep(0)
        begin.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begin
        assert story.launcher.qemus == {}
        assert (await story.world.act(VmAction.START)).state is OperationState.SUCCEEDED


@on_loop
async def test_a_client_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        story.blocks.write("disk0", 0, b"x" * SIZE)
        backup = await story.begin()
        stream = await story.service.read("web", backup.id, "disk0", 0, SIZE)
        stream.close()
        await story.world.quiet()
        assert story.blocks.clients == 0
        assert await story.read(backup, "disk0", 0, 2) == b"xx", "the session is there"


@on_loop
async def test_a_client_that_takes_nothing(tmp_path: Path) -> None:
    """It is waited for, but not for ever."""
    async with backups(tmp_path) as story:
        story.blocks.write("disk0", 0, b"x" * SIZE)
        backup = await story.begin()
        stream = await story.service.read("web", backup.id, "disk0", 0, SIZE)
        await asyncio.sleep(60)
        assert story.blocks.clients == 1
        await asyncio.sleep(120)
        assert story.blocks.clients == 0
        stream.setblocking(False)
        loop, size = asyncio.get_running_loop(), 0
        while piece := await loop.sock_recv(stream, 1 << 20):
            size += len(piece)
        assert size < SIZE, "who reads sees that it is not whole"
        stream.close()


@on_loop
async def test_connections_that_qemu_drops_are_made_again(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        story.blocks.write("disk0", 0, b"x" * SIZE)
        backup = await story.begin()
        stream = await story.service.read("web", backup.id, "disk0", 0, SIZE)
        await story.world.quiet()
        story.blocks.disconnect()
        stream.setblocking(False)
        loop, data = asyncio.get_running_loop(), b""
        while piece := await loop.sock_recv(stream, 1 << 20):
            data += piece
        stream.close()
        assert data == b"x" * SIZE


@pytest.mark.parametrize("code", [None, "ended by signal 9"])
@on_loop
async def test_the_vm_ends_in_the_middle(tmp_path: Path, code: str | None) -> None:
    async with backups(tmp_path) as story:
        backup = await story.begin()
        story.world.qemu().die(code)
        await story.world.quiet()
        with pytest.raises(MicaError, match=r"can't be read any more") as caught:
            await story.content(backup, "disk0")
        assert caught.value.problem.code is ErrorCode.CONFLICT
        await ended(story)
        story.nothing_is_left()
        assert (await story.world.act(VmAction.START)).state is OperationState.SUCCEEDED
        await story.end(await story.begin())


@on_loop
async def test_another_run_of_the_vm_is_not_the_session_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon it is started again, and whatever the host's clock says."""
    monkeypatch.setattr(clock, "now", lambda: "2026-01-01T00:00:00Z")
    async with backups(tmp_path) as story:
        backup = await story.begin()
        await asyncio.sleep(SOON_S)
        assert story.service.list("web") == (backup,), "as long as its QEMU is there"
        await story.world.act(VmAction.POWER_OFF)
        await story.world.act(VmAction.START)
        await ended(story)
        assert story.blocks.left() == []


@on_loop
async def test_the_qemu_that_reads_the_disks_dies(tmp_path: Path) -> None:
    async with backups(tmp_path, started=False) as story:
        backup = await story.begin()
        story.world.qemu().die()
        with pytest.raises(MicaError) as caught:
            await story.content(backup, "disk0")
        assert caught.value.problem.code is ErrorCode.CONFLICT
        await ended(story)
        assert story.world.vms.inventory.get("web").status.state is VmState.STOPPED
        assert not story.world.vms.usage.volume_is_open("data")
        assert (await story.world.act(VmAction.START)).state is OperationState.SUCCEEDED


@pytest.mark.parametrize("started", [True, False])
@on_loop
async def test_a_session_ends_with_its_time(tmp_path: Path, started: bool) -> None:
    async with backups(tmp_path, started=started) as story:
        backup = await story.begin(time_limit_s=60)
        assert backup.expires_at > backup.created_at
        await asyncio.sleep(59)
        assert story.service.list("web") == (backup,)
        await ended(story)
        story.nothing_is_left()
        assert (VmState.RUNNING if started else VmState.STOPPED) is (
            story.world.vms.inventory.get("web").status.state
        )


@on_loop
async def test_time_is_over_while_qemu_does_not_answer(tmp_path: Path) -> None:
    """It is tried until QEMU answers; nobody gets to the disks before."""
    async with backups(tmp_path) as story:
        backup = await story.begin(time_limit_s=60)
        story.world.qemu().replies["query-jobs"] = QmpLostError("no answer within 30 s")
        await asyncio.sleep(120)
        assert story.service.list("web") == (backup,)
        story.blocks.answer_again("query-jobs")
        await ended(story)
        story.nothing_is_left()


@on_loop
async def test_a_vmkernel_that_is_killed_leaves_nothing_to_its_successor(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        await story.begin(checkpoint="one")
        assert story.blocks.left() != []
        await story.world.restart()
        await asyncio.sleep(SOON_S)
        story.nothing_is_left()
        assert story.world.vms.inventory.get("web").status.state is VmState.RUNNING
        story.blocks.write("disk0", 2 * CLUSTER, b"new")
        backup = await story.begin(since="one")
        assert list(await story.content(backup, "disk0")) == [2 * CLUSTER]
        await story.end(backup)


@on_loop
async def test_a_vmkernel_that_ends_while_disks_of_a_vm_that_is_off_are_read(
    tmp_path: Path,
) -> None:
    async with backups(tmp_path, started=False) as story:
        await story.begin(checkpoint="one")
        qemu = story.world.qemu()
        await story.world.restart()
        assert (qemu.alive, qemu.code) == (False, None), "in order: it keeps checkpoints"
        assert story.launcher.kept[story.world.storage.volumes["data"].path]
        assert story.world.vms.inventory.get("web").status.state is VmState.STOPPED
        story.nothing_is_left()
        await story.end(await story.begin(since="one", disks=("disk0",)))
