"""The driver of what servers export, on a made-up server: first mounts, a server that is silent,
that refuses, or that has another datastore now."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.mounts import Mount
from vmkernel.host.nfs import nfs_source
from vmkernel.host.runner import Runner
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DatastoreState,
    DatastoreStatus,
    ErrorCode,
    MicaError,
    NfsSpec,
    NfsVersion,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers import mounting, nfs
from vmkernel.storage.drivers.base import Attached, CreateOptions
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.drivers.nfs import NfsDriver
from vmkernel.storage.errors import DatastoreMissing
from vmkernel.storage.layout import Layout

NFS = NfsSpec(server="nas.example", export="/srv/mica")
SPEC = DatastoreSpec(kind=DatastoreKind.NFS, nfs=NFS)


class Server:
    """Exports a folder; to mount it is to rename it to where it is mounted. `error` is how mounts
    fail; nothing returns while it doesn't answer."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.export = root / "export"
        self.export.mkdir()
        self.table: list[Mount] = []
        self.error: OSError | None = None
        self.busy = False
        self.answers = threading.Event()
        self.undone = threading.Event()
        self.answers.set()
        self.driver = NfsDriver(Mounting(Runner(), root / "mounts"), BlockingCalls())
        monkeypatch.setattr(nfs, "mount_nfs", self._mount)
        monkeypatch.setattr(nfs, "unmount", self._unmount)
        monkeypatch.setattr(mounting, "unmount", self._unmount)
        monkeypatch.setattr(mounting, "mounts", lambda: tuple(self.table))
        monkeypatch.setattr(os, "statvfs", self._statvfs)

    @property
    def target(self) -> Path:
        return self.driver._mounting.target("d")

    def _mount(self, spec: NfsSpec, target: Path) -> None:
        assert self.answers.wait(20)
        if self.error is not None:
            raise self.error
        self.export.rename(target)
        options = ("rw", "vers=4.2", "softerr")
        self.table.append(Mount("0:50", target, "nfs4", nfs_source(spec), options))

    def _unmount(self, target: Path, *, lazily: bool = False) -> None:
        if self.busy and not lazily:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self.table = [entry for entry in self.table if entry.target != target]
        target.rename(self.export)
        target.mkdir()
        self.undone.set()

    def _statvfs(self, path: Path) -> object:
        assert path == self.target
        assert self.answers.wait(20)
        if self.error is not None:
            raise self.error
        return object()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def _create(server: Server, options: CreateOptions = CreateOptions()) -> Attached:  # noqa: B008
    return asyncio.run(server.driver.create("d", SPEC, options, lambda _: None))


def _stored(uuid: str) -> StoredDatastore:
    return StoredDatastore(id="d", created_at="2026-01-01T00:00:00Z", spec=SPEC, uuid=uuid)


def _refused(work: Callable[[], Awaitable[object]]) -> MicaError:
    async def go() -> None:
        await work()

    with pytest.raises(MicaError) as caught:
        asyncio.run(go())
    return caught.value


@pytest.mark.parametrize(
    ("spec", "options", "pointer"),
    [
        (DatastoreSpec(kind=DatastoreKind.NFS), CreateOptions(), "/spec/nfs"),
        (SPEC, CreateOptions(("DISK",)), "/wipe_serials/0"),
        (
            DatastoreSpec(kind=DatastoreKind.NFS, nfs=NfsSpec(server="a b", export="/x")),
            CreateOptions(),
            "/spec/nfs/server",
        ),
        (
            DatastoreSpec(kind=DatastoreKind.NFS, nfs=NfsSpec(server="a", export="x")),
            CreateOptions(),
            "/spec/nfs/export",
        ),
    ],
)
def test_what_needs_no_server_to_be_seen_is_refused_at_once(
    server: Server, spec: DatastoreSpec, options: CreateOptions, pointer: str
) -> None:
    for work in (
        lambda: server.driver.check(spec, options),
        lambda: server.driver.create("d", spec, options, lambda _: None),
    ):
        assert _refused(work).problem.fields[0].pointer == pointer
    assert server.table == []


def test_an_empty_export_becomes_a_datastore_and_stays_the_same(server: Server) -> None:
    first = _create(server)
    assert (first.root, first.device) == (server.target, "nas.example:/srv/mica")
    assert first.filesystem == "nfs"
    stored = _stored(first.uuid)
    observed = asyncio.run(server.driver.observe(stored))
    status = observed.complete(DatastoreStatus(state=DatastoreState.AVAILABLE))
    assert status.nfs_version is NfsVersion.V4_2
    assert asyncio.run(server.driver.attach(stored)).uuid == first.uuid
    assert len(server.table) == 1, "what an earlier vmkernel mounted is not mounted twice"
    asyncio.run(server.driver.detach(stored))
    assert server.table == []
    assert not server.target.exists()
    assert asyncio.run(server.driver.attach(stored)).uuid == first.uuid


def test_only_what_holds_a_datastore_is_adopted(server: Server) -> None:
    found = _refused(
        lambda: server.driver.create("d", SPEC, CreateOptions(adopt=True), lambda _: None)
    )
    assert found.problem.fields[0].pointer == "/adopt"
    assert server.table == []
    Layout(server.export).initialise()
    _create(server, CreateOptions(adopt=True))


def test_an_export_with_other_files_is_left_alone(server: Server) -> None:
    (server.export / "family.jpg").touch()
    found = _refused(lambda: server.driver.create("d", SPEC, CreateOptions(), lambda _: None))
    assert found.problem.code is ErrorCode.CONFLICT
    assert server.table == []
    assert [path.name for path in server.export.iterdir()] == ["family.jpg"]


def test_another_datastore_in_its_place_is_not_it(server: Server) -> None:
    Layout(server.export).initialise()
    with pytest.raises(DatastoreMissing, match="another datastore"):
        asyncio.run(server.driver.attach(_stored("other")))
    assert server.table == []


@pytest.mark.parametrize(
    ("number", "missing", "words"),
    [
        (errno.ETIMEDOUT, True, "can't be used"),
        (errno.ECONNREFUSED, True, "can't be used"),
        (errno.EHOSTUNREACH, True, "can't be used"),
        (errno.EACCES, False, "no_root_squash"),
        (errno.EPROTONOSUPPORT, False, "doesn't support NFS 3 or 4"),
        (errno.ENOENT, False, "can't be mounted"),
    ],
)
def test_why_it_cannot_be_mounted_is_said(
    server: Server, number: int, missing: bool, words: str
) -> None:
    server.error = OSError(number, os.strerror(number))
    found = _refused(lambda: server.driver.attach(_stored("m")))
    assert isinstance(found, DatastoreMissing) is missing
    assert words in str(found)
    assert not server.target.exists()


def test_a_silent_server_is_given_up_and_its_late_answer_undone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfs, "_MOUNT_S", 0.1)
    uuid = Layout(server.export).initialise().uuid
    server.answers.clear()

    async def scenario() -> None:
        with pytest.raises(DatastoreMissing):
            await server.driver.attach(_stored(uuid))
        assert server.driver._blocking.hangs("mount-d")
        server.answers.set()
        await asyncio.to_thread(server.undone.wait, 10)

    asyncio.run(scenario())
    assert server.table == [], "nothing stays mounted that nobody asks for any more"


def test_it_is_there_while_the_server_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = _stored(_create(server).uuid)
    monkeypatch.setattr(nfs, "_PROBE_S", 0.1)
    assert asyncio.run(server.driver.present(stored))
    server.error = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    assert not asyncio.run(server.driver.present(stored))
    server.error = None
    server.answers.clear()

    async def silent() -> None:
        assert not await server.driver.present(stored)
        server.answers.set()

    asyncio.run(silent())
    server.table.clear()
    assert not asyncio.run(server.driver.present(stored)), "its mount is gone"


def test_what_is_open_there_keeps_it_mounted_unless_forced(server: Server) -> None:
    stored = _stored(_create(server).uuid)
    server.busy = True
    found = _refused(lambda: server.driver.detach(stored))
    assert found.problem.code is ErrorCode.IN_USE
    assert len(server.table) == 1
    asyncio.run(server.driver.detach(stored, force=True))
    assert server.table == []


def test_what_else_is_mounted_in_its_place_is_taken_away(server: Server) -> None:
    stored = _stored(_create(server).uuid)
    (old,) = server.table
    server.table = [Mount("0:9", old.target, "nfs4", "old.example:/gone", old.options)]
    assert asyncio.run(server.driver.attach(stored)).uuid == stored.uuid
    assert [entry.source for entry in server.table] == ["nas.example:/srv/mica"]
