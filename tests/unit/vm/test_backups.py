"""Backups: disks as they were at one instant, what changed since, and what waits meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from tests.unit.vm.backup_story import SIZE, BackupStory, backups
from tests.unit.vm.fake_agent import FakeAgent
from tests.unit.vm.fake_blocks import CLUSTER
from vmkernel.model import (
    ErrorCode,
    MicaError,
    OperationState,
    SnapshotSpec,
    VmAction,
    VmState,
    VolumeFormat,
)
from vmkernel.vm.states import VmRequest

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"


async def refused(story: BackupStory, code: ErrorCode, words: str, **what: object) -> MicaError:
    """A backup that is not begun, and leaves nothing."""
    with pytest.raises(MicaError, match=words) as caught:
        await story.begin(**what)  # type: ignore[arg-type]
    assert caught.value.problem.code is code
    return caught.value


@on_loop
async def test_the_disks_stay_as_they_were_while_the_guest_writes_on(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        story.blocks.write("disk0", CLUSTER, b"then")
        backup = await story.begin()
        assert [(d.key, d.volume, d.size_bytes) for d in backup.disks] == [
            ("disk0", "data", SIZE),
            ("disk1", "more", SIZE),
        ]
        assert story.service.list("web") == (backup,)
        assert story.service.get("web", backup.id) == backup
        story.blocks.write("disk0", CLUSTER, b"now!")
        story.blocks.write("disk0", 5 * CLUSTER, b"now!")
        found = await story.content(backup, "disk0")
        assert b"".join(found.values()) == bytes(CLUSTER) + b"then".ljust(SIZE - CLUSTER, b"\0")
        assert await story.read(backup, "disk0", CLUSTER + 1, 2) == b"he"
        assert not any(path.exists() for path in story.scratches), "QEMU alone has them"
        saved = await story.service.saved_vm("web", backup.id)
        assert saved.spec == story.world.vms.inventory.get("web").spec
        await story.end(backup)
        story.nothing_is_left()
        assert [(e.data, e.actor) for e in story.world.events("vm.backup-ended")] == [
            ({"backup": backup.id}, "anna")
        ]


@on_loop
async def test_all_disks_are_of_one_instant(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        backup = await story.begin()
        instants = [a for name, a in story.world.qemu().commands if name == "transaction"]
        assert len(instants) == 1
        jobs = [a["data"]["device"] for a in instants[0]["actions"] if "backup" in a["type"]]
        assert jobs == ["disk0", "disk1"]
        await story.end(backup)
        one = await story.begin(disks=("disk1", "disk1"))
        assert [disk.key for disk in one.disks] == ["disk1"]
        with pytest.raises(MicaError, match="has no disk 'disk0'") as caught:
            await story.content(one, "disk0")
        assert caught.value.problem.code is ErrorCode.NOT_FOUND


@on_loop
async def test_a_later_one_lists_what_changed_since(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        story.blocks.write("disk0", 0, b"old")
        await story.end(await story.begin(checkpoint="one"))
        story.blocks.write("disk0", 3 * CLUSTER + 7, b"new")
        story.blocks.write("disk1", 9 * CLUSTER, bytes(5))
        second = await story.begin(checkpoint="two", since="one")
        story.blocks.write("disk0", 8 * CLUSTER, b"later")
        assert await story.content(second, "disk0") == {
            3 * CLUSTER: bytes(7) + b"new".ljust(CLUSTER - 7, b"\0")
        }
        assert await story.content(second, "disk1") == {9 * CLUSTER: bytes(CLUSTER)}
        await story.end(second)
        story.nothing_is_left()
        third = await story.begin(since="two")
        assert list(await story.content(third, "disk0")) == [8 * CLUSTER]
        assert await story.content(third, "disk1") == {}
        await story.end(third)
        one, two = await story.service.checkpoints("web")
        assert [one.id, two.id] == ["one", "two"]
        assert [(d.key, d.dirty_bytes, d.persistent) for d in one.disks] == [
            ("disk0", 2 * CLUSTER, True),
            ("disk1", CLUSTER, False),
        ]
        assert [d.dirty_bytes for d in two.disks] == [CLUSTER, 0]


@on_loop
async def test_checkpoints_that_cannot_be(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        for given, pointer, words in (
            ({"since": "one"}, "/since", "full backup"),
            ({"disks": ("disk0", "disk7")}, "/disks/1", "no disk disk7"),
        ):
            code = ErrorCode.CONFLICT if "since" in given else ErrorCode.INVALID
            error = await refused(story, code, words, **given)
            assert [field.pointer for field in error.problem.fields] == [pointer]
            story.nothing_is_left()
        await story.end(await story.begin(checkpoint="one", disks=("disk0",)))
        error = await refused(story, ErrorCode.CONFLICT, "already", checkpoint="one")
        assert [field.pointer for field in error.problem.fields] == ["/checkpoint"]
        # disk1 was not in it.
        await refused(story, ErrorCode.CONFLICT, "of disk1 is not there", since="one")
        story.nothing_is_left()
        await story.service.delete_checkpoint("web", "one")
        assert await story.service.checkpoints("web") == ()
        with pytest.raises(MicaError) as caught:
            await story.service.delete_checkpoint("web", "one")
        assert caught.value.problem.code is ErrorCode.NOT_FOUND


@on_loop
async def test_a_checkpoint_does_not_outlive_a_crash_unless_its_disk_keeps_it(
    tmp_path: Path,
) -> None:
    async with backups(tmp_path) as story:
        await story.end(await story.begin(checkpoint="one"))
        await story.world.act(VmAction.POWER_OFF)
        await story.world.act(VmAction.START)
        (one,) = await story.service.checkpoints("web")
        assert [(disk.key, disk.usable) for disk in one.disks] == [("disk0", True)]
        await refused(story, ErrorCode.CONFLICT, "of disk1 is not there", since="one")
        await story.end(await story.begin(since="one", disks=("disk0",)))
        story.world.qemu().die()
        await story.world.quiet()
        await story.world.act(VmAction.START)
        await refused(story, ErrorCode.CONFLICT, "lost in a crash", since="one", disks=("disk0",))
        story.nothing_is_left()


@pytest.mark.parametrize("how", ["held still", "refuses", "silent", "none"])
@on_loop
async def test_the_guest_s_file_systems_stand_still_at_the_instant(
    tmp_path: Path, how: str
) -> None:
    async with backups(tmp_path) as story:
        agent = FakeAgent(story.world.host.folder("web").agent)
        if how == "refuses":
            agent.answers[FREEZE] = ValueError("not now")
        elif how == "silent":
            agent.answers[FREEZE] = None
        asked: list[str] = []
        story.blocks.at_instant = lambda: asked.extend(agent.asked)
        async with agent.serving():
            story.world.vms.inventory.agent("web").note_channel(is_open=how != "none")
            backup = await story.begin()
            assert backup.quiet is (how == "held still")
            if how == "held still":
                assert FREEZE in asked
                assert THAW not in asked
                assert THAW in agent.asked, "the guest goes on while the backup is read"
            if how == "none":
                assert agent.asked == []
            assert not story.world.vms.inventory.agent("web").status().frozen
            await story.end(backup)


@on_loop
async def test_a_guest_goes_on_if_the_instant_fails(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        agent = FakeAgent(story.world.host.folder("web").agent)
        async with agent.serving():
            story.world.vms.inventory.agent("web").note_channel(is_open=True)
            story.blocks.refuse = {"transaction"}
            await refused(story, ErrorCode.UNAVAILABLE, "refused")
            assert agent.asked.index(FREEZE) < agent.asked.index(THAW)
            story.nothing_is_left()


@on_loop
async def test_one_session_at_a_time_and_what_it_keeps_others_from(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        vms = story.world.vms
        backup = await story.begin()
        await refused(story, ErrorCode.CONFLICT, f"{backup.id} of VM web is open")
        taking = await vms.snapshots().create("web", "one", SnapshotSpec(), actor="bert")
        taken = await story.world.operations.wait(taking.id, 10)
        assert taken.error is not None
        assert (taken.error.code, "backup" in taken.error.detail) == (ErrorCode.CONFLICT, True)
        with pytest.raises(MicaError, match="a backup of it is open") as caught:
            await vms.live_disks().mirror(
                "data",
                tmp_path / "target.qcow2",
                VolumeFormat.QCOW2,
                on_progress=lambda _done, _total: None,
                commit=_never,
                revert=_never,
            )
        assert caught.value.problem.code is ErrorCode.CONFLICT
        # Another client reads it, or ends it: who knows its id has it.
        assert await story.content(backup, "disk1") == {0: bytes(SIZE)}
        await story.end(backup)
        story.nothing_is_left()
        with pytest.raises(MicaError) as caught:
            await story.end(backup)
        assert caught.value.problem.code is ErrorCode.NOT_FOUND


async def _never() -> None:
    raise AssertionError("it was refused")


@on_loop
async def test_two_begin_at_once_and_one_has_it(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        outcomes = await asyncio.gather(story.begin(), story.begin(), return_exceptions=True)
        (error,) = (o for o in outcomes if isinstance(o, BaseException))
        (backup,) = (o for o in outcomes if not isinstance(o, BaseException))
        assert isinstance(error, MicaError)
        assert error.problem.code is ErrorCode.CONFLICT
        assert await story.content(backup, "disk0") == {0: bytes(SIZE)}
        await story.end(backup)
        story.nothing_is_left()


@on_loop
async def test_while_others_work_on_the_disks_there_is_none(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        blocks = frozenset({VmRequest.HOLD})
        with story.world.vms.inventory.hold("web", "volume data is being moved", blocks):
            await refused(story, ErrorCode.CONFLICT, "being moved")
        story.nothing_is_left()


@on_loop
async def test_the_disks_of_a_vm_that_is_off(tmp_path: Path) -> None:
    async with backups(tmp_path, started=False) as story:
        path = story.world.storage.volumes["data"].path
        path.write_bytes(b"at rest".ljust(SIZE, b"\0"))
        backup = await story.begin(checkpoint="one")
        vm = story.world.vms.inventory.get("web")
        assert vm.status.state is VmState.STOPPED
        assert not backup.quiet
        assert (await story.content(backup, "disk0"))[0].startswith(b"at rest")
        (one,) = await story.service.checkpoints("web")
        assert [(disk.key, disk.persistent) for disk in one.disks] == [
            ("disk0", True),
            ("disk1", False),
        ]
        with pytest.raises(MicaError, match="a backup of it is open"):
            await story.world.act(VmAction.START)
        with pytest.raises(MicaError, match="a backup of it is open"):
            await story.world.vms.changes.delete("web", actor="bert")
        qemu = story.world.qemu()
        await story.end(backup)
        assert (qemu.alive, qemu.code) == (False, None), "in order: it keeps checkpoints"
        assert story.launcher.qemus == {}
        story.nothing_is_left()
        await story.world.act(VmAction.START)
        story.blocks.write("disk0", CLUSTER, b"new")
        later = await story.begin(since="one", disks=("disk0",))
        assert list(await story.content(later, "disk0")) == [CLUSTER]
        await story.end(later)


@on_loop
async def test_a_checkpoint_is_forgotten_while_the_disks_are_read(tmp_path: Path) -> None:
    async with backups(tmp_path, started=False) as story:
        backup = await story.begin(checkpoint="one")
        await story.service.delete_checkpoint("web", "one")
        assert await story.service.checkpoints("web") == ()
        await story.end(backup)
        assert story.blocks.checkpoints() == set()


@on_loop
async def test_a_suspended_vm_has_more_than_its_disks(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        operation = await story.world.act(VmAction.SUSPEND)
        assert operation.state is OperationState.SUCCEEDED
        await refused(story, ErrorCode.CONFLICT, "suspended")


@on_loop
async def test_parts_that_are_not_there(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        backup = await story.begin()
        for offset, length in ((0, SIZE + 1), (SIZE, 1)):
            with pytest.raises(MicaError, match=f"{SIZE} bytes") as caught:
                await story.service.read("web", backup.id, "disk0", offset, length)
            assert caught.value.problem.code is ErrorCode.INVALID
        with pytest.raises(MicaError) as caught:
            await story.service.extents("web", "backup-of-another", "disk0", 0)
        assert caught.value.problem.code is ErrorCode.NOT_FOUND
        assert await story.service.extents("web", backup.id, "disk0", SIZE) == ((), None)
        await story.world.quiet()
        assert story.blocks.clients == 0, "connections that are not needed any more are closed"


@on_loop
async def test_a_qemu_that_does_not_know_how_long_a_handshake_may_take(tmp_path: Path) -> None:
    async with backups(tmp_path) as story:
        story.blocks.handshakes_max_s = False
        backup = await story.begin()
        assert await story.content(backup, "disk0") == {0: bytes(SIZE)}
