"""Moves of volumes under a running VM, on a QEMU that models its nodes and jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vm.fake_qemu import FakeQemu
from tests.unit.vm.world import World
from vmkernel.model import DiskSpec, ErrorCode, MicaError, VmAction, VolumeFormat
from vmkernel.qemu import QmpCommandError, QmpLostError
from vmkernel.vm import live_disks


class Nodes:
    """The block layer of a fake QEMU: one disk, its nodes, and one mirror."""

    def __init__(self, qemu: FakeQemu) -> None:
        self.qemu = qemu
        self.below = ["disk0-format-0", "disk0-file-0"]
        self.others: list[str] = []
        self.job: dict[str, Any] | None = None
        self.refuse: set[str] = set()
        self.stuck = False
        for command in (
            "query-blockstats",
            "query-jobs",
            "blockdev-add",
            "blockdev-del",
            "blockdev-mirror",
            "job-complete",
            "job-finalize",
            "job-cancel",
            "job-dismiss",
        ):
            qemu.replies[command] = self._answer(command)

    def _answer(self, command: str) -> Callable[[Mapping[str, Any]], Any]:
        def answer(arguments: Mapping[str, Any]) -> Any:
            if command in self.refuse:
                return QmpCommandError(f"no {command}")
            return getattr(self, command.replace("-", "_"))(arguments)

        return answer

    def query_blockstats(self, _: Mapping[str, Any]) -> Any:
        names = ["disk0", *self.below]
        chain: dict[str, Any] = {}
        for name in reversed(names):
            chain = {"node-name": name, **({"parent": chain} if chain else {})}
        return [chain, *({"node-name": name} for name in (*self.below, *self.others))]

    def query_jobs(self, _: Mapping[str, Any]) -> Any:
        if self.job is None:
            return []
        told = dict(self.job)
        if self.job["status"] == "running" and not self.stuck:
            self.job["status"] = "ready"
        return [told]

    def blockdev_add(self, arguments: Mapping[str, Any]) -> None:
        self.others.append(arguments["node-name"])

    def blockdev_del(self, arguments: Mapping[str, Any]) -> Any:
        if arguments["node-name"] in self.below:
            return QmpCommandError("Node is in use")
        self.others.remove(arguments["node-name"])
        return None

    def blockdev_mirror(self, arguments: Mapping[str, Any]) -> None:
        assert arguments["device"] == "disk0"
        assert arguments["replaces"] == self.below[0]
        self.job = {
            "id": arguments["job-id"],
            "status": "running",
            "current-progress": 1,
            "total-progress": 2,
        }

    def job_complete(self, _: Mapping[str, Any]) -> None:
        assert self.job is not None
        assert self.job["status"] == "ready"
        self.job["status"] = "pending"

    def job_finalize(self, _: Mapping[str, Any]) -> None:
        assert self.job is not None
        assert self.job["status"] == "pending"
        self.job["status"] = "concluded"
        old, self.below = self.below, sorted(self.others, key=lambda n: "-file" in n)
        self.others = old

    def job_cancel(self, _: Mapping[str, Any]) -> None:
        assert self.job is not None
        self.job["status"] = "concluded"

    def job_dismiss(self, _: Mapping[str, Any]) -> None:
        self.job = None


class Story:
    """A running VM with one disk, a target file, and a move of one onto the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes = Nodes(world.qemu())
        self.target = world.root / "target.raw"
        self.target.write_bytes(bytes(1 << 20))
        self.told: list[str] = []
        self.fail: Exception | None = None

    def move(self) -> Awaitable[None]:
        async def commit() -> None:
            assert self.nodes.job is not None
            assert self.nodes.job["status"] == "pending"
            self.told.append("commit")
            if self.fail is not None:
                raise self.fail
            known = self.world.storage.volumes["data"]
            self.world.storage.volumes["data"] = type(known)(
                id="data",
                datastore="main",
                path=self.target,
                format=VolumeFormat.RAW,
                size_bytes=1 << 20,
            )

        async def revert() -> None:
            self.told.append("revert")

        return self.world.vms.live_disks().mirror(
            "data",
            self.target,
            VolumeFormat.RAW,
            on_progress=lambda _done, _total: None,
            commit=commit,
            revert=revert,
        )

    def clean(self) -> bool:
        """True where QEMU has no job and no more nodes and files than before."""
        return not (self.nodes.job or self.nodes.others) and len(self.world.qemu().fdsets) <= 1


@asynccontextmanager
async def _story(root: Path) -> Any:
    world = World(root)
    world.storage.add_volume("data")
    await world.vms.start()
    try:
        await world.create(disks=(DiskSpec(volume="data"),))
        await world.act(VmAction.START)
        yield Story(world)
    finally:
        await world.operations.close()
        await world.vms.stop()


def test_a_disk_goes_over_to_its_new_file(tmp_path: Path) -> None:
    async def story() -> None:
        async with _story(tmp_path) as s:
            await s.move()
            assert s.told == ["commit"]
            assert s.clean()
            assert s.nodes.below[0].startswith("disk0-format-")
            assert s.nodes.below[0] != "disk0-format-0"
            await s.move()
            assert s.clean(), "the file of the first move is taken back"

    asyncio.run(story())


@pytest.mark.parametrize("refused", ["blockdev-add", "blockdev-mirror", "job-complete"])
def test_what_qemu_refuses_leaves_nothing(tmp_path: Path, refused: str) -> None:
    async def story() -> None:
        async with _story(tmp_path) as s:
            s.nodes.refuse.add(refused)
            with pytest.raises(MicaError):
                await s.move()
            assert s.told == []
            assert s.clean()
            assert not s.world.qemu().fdsets
            assert s.nodes.below == ["disk0-format-0", "disk0-file-0"]

    asyncio.run(story())


def test_a_failed_commit_stays_with_the_old_file(tmp_path: Path) -> None:
    async def story() -> None:
        async with _story(tmp_path) as s:
            s.fail = MicaError(ErrorCode.INSUFFICIENT_SPACE, "full")
            with pytest.raises(MicaError, match="full"):
                await s.move()
            assert s.told == ["commit"]
            assert s.clean()

    asyncio.run(story())


def test_a_refusal_after_the_commit_is_reverted(tmp_path: Path) -> None:
    async def story() -> None:
        async with _story(tmp_path) as s:
            s.nodes.refuse.add("job-finalize")
            with pytest.raises(MicaError):
                await s.move()
            assert s.told == ["commit", "revert"]
            assert s.clean()

    asyncio.run(story())


@pytest.mark.parametrize("done", [False, True])
def test_the_file_that_qemu_writes_counts_where_its_answer_is_lost(
    tmp_path: Path, done: bool
) -> None:
    """To take the old file then would lose all that the guest writes from here on."""

    async def story() -> None:
        async with _story(tmp_path) as s:
            finalize = s.nodes.job_finalize

            def lose(arguments: Mapping[str, Any]) -> Any:
                if done:
                    finalize(arguments)
                return QmpLostError("no answer within 30 s")

            s.nodes.job_finalize = lose
            if done:
                await s.move()
                assert s.told == ["commit"]
                assert s.nodes.below[0] != "disk0-format-0"
            else:
                with pytest.raises(MicaError):
                    await s.move()
                assert s.told == ["commit", "revert"]
                assert s.nodes.below[0] == "disk0-format-0"
            assert s.clean()

    asyncio.run(story())


def test_a_qemu_that_is_silent_after_the_commit_is_settled_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with _story(tmp_path) as s:
            monkeypatch.setattr(live_disks, "_AGAIN_S", 0.01)
            silent = [True]
            finalize, told = s.nodes.job_finalize, s.nodes.query_jobs

            def lose(_: Mapping[str, Any]) -> Any:
                s.nodes.query_jobs = quiet
                return QmpLostError("no answer within 30 s")

            def quiet(arguments: Mapping[str, Any]) -> Any:
                return QmpLostError("no answer within 30 s") if silent else told(arguments)

            s.nodes.job_finalize = lose
            with pytest.raises(MicaError):
                await s.move()
            assert s.told == ["commit"], "nothing is reverted on a guess"
            s.nodes.job_finalize = finalize
            silent.clear()
            async with asyncio.timeout(10):
                while not s.clean():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert s.nodes.below[0] != "disk0-format-0"

    asyncio.run(story())


def test_cancelling_takes_the_mirror_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with _story(tmp_path) as s:
            s.nodes.stuck = True
            task = asyncio.ensure_future(s.move())
            async with asyncio.timeout(10):
                while s.nodes.job is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            with pytest.raises(MicaError, match="being moved"):
                await s.move()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert s.told == []
            assert s.clean()

    asyncio.run(story())


@pytest.mark.parametrize("command", ["add-fd", "blockdev-add", "blockdev-mirror"])
@pytest.mark.parametrize("rounds", range(4))
def test_cancelling_while_it_begins_leaves_nothing(
    tmp_path: Path, command: str, rounds: int
) -> None:
    """Whoever is cancelled before he knows what was begun must know it all the same."""

    async def story() -> None:
        async with _story(tmp_path) as s:
            s.nodes.stuck = True
            qemu = s.world.qemu()
            task: asyncio.Future[None] | None = None

            def cancel_soon(left: int) -> None:
                assert task is not None
                if left:
                    asyncio.get_running_loop().call_soon(cancel_soon, left - 1)
                else:
                    task.cancel()

            if command == "add-fd":
                give = qemu.sessions[0].add_fd

                async def add_fd(fd: int, opaque: str = "") -> int:
                    cancel_soon(rounds)
                    await asyncio.sleep(0.01)
                    number: int = await give(fd, opaque)
                    return number

                qemu.sessions[0].add_fd = add_fd
            else:
                name = command.replace("-", "_")
                carry_out = getattr(s.nodes, name)

                def answer(arguments: Mapping[str, Any]) -> Any:
                    cancel_soon(rounds)
                    return carry_out(arguments)

                setattr(s.nodes, name, answer)
            task = asyncio.ensure_future(s.move())
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert s.told == []
            assert s.clean()
            assert not qemu.fdsets

    asyncio.run(story())


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("status", ["running", "ready", "pending", "concluded"])
def test_a_restarted_vmkernel_settles_it(tmp_path: Path, committed: bool, status: str) -> None:
    """Only a mirror whose target is the volume by now is finished; each other is taken away."""

    async def story() -> None:
        async with _story(tmp_path) as s:
            qemu = s.world.qemu()
            found = s.target.stat()
            fd = os.open(s.target, os.O_RDWR)
            qemu.fdsets[7] = fd
            qemu.opaque[7] = f"fdset disk0-file-new {found.st_dev}:{found.st_ino}"
            s.nodes.others = ["disk0-format-new", "disk0-file-new"]
            s.nodes.job = {"id": "move-disk0", "status": status}
            s.nodes.stuck = True
            if committed:
                known = s.world.storage.volumes["data"]
                s.world.storage.volumes["data"] = type(known)(
                    id="data",
                    datastore="main",
                    path=s.target,
                    format=VolumeFormat.RAW,
                    size_bytes=1 << 20,
                )
            await s.world.restart()
            async with asyncio.timeout(20):
                while not s.clean():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            goes_over = committed and status == "pending"
            assert ("disk0-file-new" in s.nodes.below) is goes_over

    asyncio.run(story())
