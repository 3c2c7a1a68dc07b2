"""Backups of VMs: sessions that keep disks readable as they were at one instant.

  begin -> open (extents, data) -> ended        by its owner, by its time limit,
                                                or because the VM's QEMU ended

The disks of a VM that is off are read by a QEMU whose guest never runs (offline_reader.py), which
is there for as long as the session.

One session a VM at a time. Blocks that the guest overwrites meanwhile go to a scratch file on the
volume's datastore, which is unlinked once QEMU has it open, so that nothing is ever left of it;
after a restart, the vmkernel removes what QEMU still has of a session (live_disks.py). What is not
on the disks (spec, firmware variables, TPM state) is kept the same way, in a file without a name,
as it was when the disks' instant was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from vmkernel import clock
from vmkernel.aio import BackgroundTasks, begun
from vmkernel.host import from_os_error, naming_datastore
from vmkernel.host.files import create_nameless, remove
from vmkernel.host.unix_socket import listen_stream
from vmkernel.model import (
    Backup,
    BackupDisk,
    BackupExtent,
    Checkpoint,
    CheckpointDisk,
    ErrorCode,
    MicaError,
    SavedVm,
    Subject,
    VmState,
    VolumeFormat,
)
from vmkernel.qemu import QemuError, block_graph, point_in_time
from vmkernel.qemu.nbd import ALLOCATION, MAX_READ_BYTES, Extent, NbdError, NbdReader, extents_of
from vmkernel.qemu.point_in_time import DiskPoint
from vmkernel.vm.backup.offline_reader import OfflineDiskReader, checkpoints_of, forget_checkpoint
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.nonvolatile.machine_state import read_state
from vmkernel.vm.states import AT_REST, VmRequest
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["MakeScratch", "VmBackups"]

_log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

MakeScratch = Callable[[str, int], Awaitable[Path]]
"""Makes an empty qcow2 beside a volume: the volume's id, and the size in bytes."""

_EXTENTS_MAX = 4096
_STATUS_BYTES = 1 << 30
_WATCH_S = 2.0
_SILENCE_S = 120.0


@dataclass
class _Session:
    backup: Backup
    points: tuple[DiskPoint, ...]
    run: str | None
    """The run of the QEMU that it is about."""
    path: Path
    saved: IO[bytes]
    """The VM without its disks: a SavedVm in msgpack, in a file that has no name."""
    held: contextlib.AsyncExitStack
    deadline: float
    still: OfflineDiskReader | None
    """What reads the disks of a VM that is off."""


class VmBackups:
    def __init__(
        self,
        vms: VmInventory,
        host: VmContext,
        make_scratch: MakeScratch,
        tasks: BackgroundTasks,
    ) -> None:
        self._tasks = tasks
        self._vms = vms
        self._host = host
        self._make_scratch = make_scratch
        self._sessions: dict[str, _Session] = {}

    # --- sessions -----------------------------------------------------------------------------

    async def begin(
        self,
        vm_id: str,
        *,
        disks: tuple[str, ...] | None,
        checkpoint: str | None,
        since: str | None,
        time_limit_s: int,
        actor: str,
    ) -> Backup:
        spec = self._vms.get(vm_id).spec
        known = {disk.key or "": disk.volume for disk in spec.disks}
        keys = tuple(known) if disks is None else tuple(dict.fromkeys(disks))
        for index, key in enumerate(keys):
            if key not in known:
                raise MicaError.field(f"/disks/{index}", f"VM {vm_id} has no disk {key}.")
        if not keys:
            raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} has no disks.")
        if vm_id in self._sessions:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"Backup {self._sessions[vm_id].backup.id} of VM {vm_id} is open: end it first.",
            )
        driver = self._vms.driver(vm_id)
        await driver.ready()
        if driver.state is VmState.SUSPENDED:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"VM {vm_id} is suspended, and its memory holds what is not on its disks yet:"
                " resume it, or discard its state.",
            )
        off = driver.state in AT_REST
        blocks = {VmRequest.HOLD, VmRequest.DELETE}
        if off:
            blocks |= {VmRequest.START, VmRequest.RECONFIGURE}
        async with contextlib.AsyncExitStack() as undo:
            undo.enter_context(driver.hold("a backup of it is open", frozenset(blocks)))
            socket_path = self._host.folder(vm_id).nbd
            undo.callback(remove, socket_path)
            volumes = {key: self._host.storage.volume(known[key]) for key in keys}
            scratches = {}
            with naming_datastore(spec.datastore):
                saved = undo.enter_context(await _nameless(vm_id, driver.folder))
            try:
                for key, volume in volumes.items():
                    scratches[key] = await self._make_scratch(volume.id, volume.size_bytes)

                async def make(running: RunningVm) -> tuple[tuple[DiskPoint, ...], str | None]:
                    made = await _make_point(running, scratches, checkpoint, since)
                    try:
                        with naming_datastore(spec.datastore):
                            await asyncio.to_thread(_save, saved, running.definition, driver.folder)
                    except BaseException:
                        await _drop_points(running, made[0], checkpoint)
                        raise
                    return made

                async def drop(made: tuple[tuple[DiskPoint, ...], str | None]) -> None:
                    with contextlib.suppress(MicaError):
                        await self._vms.use(
                            vm_id,
                            VmRequest.OPERATE,
                            lambda running: _drop_points(running, made[0], checkpoint),
                        )

                still: OfflineDiskReader | None = None
                if off:
                    still = await begun(
                        OfflineDiskReader.open(driver), lambda opened: opened.close()
                    )
                if still is not None:
                    undo.push_async_callback(still.close)
                    quiet = False
                    points, run = await make(still.running)
                else:
                    async with contextlib.AsyncExitStack() as frozen:
                        quiet = await self._freeze(vm_id, frozen)
                        points, run = await begun(
                            self._vms.use(vm_id, VmRequest.OPERATE, make), drop
                        )
            except QemuError as error:
                raise MicaError(ErrorCode.UNAVAILABLE, f"{error}") from error
            finally:
                for path in scratches.values():
                    remove(path)
            now = time.time()
            backup = Backup(
                id=f"backup-{secrets.token_hex(6)}",
                vm=vm_id,
                created_at=clock.format_time(now),
                expires_at=clock.format_time(now + time_limit_s),
                checkpoint=checkpoint,
                since=since,
                quiet=quiet,
                disks=tuple(
                    BackupDisk(key=k, volume=v.id, size_bytes=v.size_bytes)
                    for k, v in volumes.items()
                ),
            )
            session = _Session(
                backup,
                points,
                run,
                socket_path,
                saved,
                undo.pop_all(),
                asyncio.get_running_loop().time() + time_limit_s,
                still,
            )
        self._sessions[vm_id] = session
        self._tasks.begin(self._watch(session), f"backup-of-{vm_id}")
        self._publish("vm.backup-begun", backup, actor)
        return backup

    def list(self, vm_id: str) -> tuple[Backup, ...]:
        """The open session of a VM, if any."""
        self._vms.get(vm_id)
        session = self._sessions.get(vm_id)
        return () if session is None else (session.backup,)

    def get(self, vm_id: str, backup_id: str) -> Backup:
        return self._session(vm_id, backup_id).backup

    async def saved_vm(self, vm_id: str, backup_id: str) -> SavedVm:
        """The VM of a session without its disks, as it was at the session's instant."""
        session = self._session(vm_id, backup_id)

        def load() -> bytes:
            size = os.fstat(session.saved.fileno()).st_size
            return os.pread(session.saved.fileno(), size, 0)

        return msgspec.msgpack.decode(await asyncio.to_thread(load), type=SavedVm)

    async def end(self, vm_id: str, backup_id: str, *, actor: str) -> None:
        await self._end(self._session(vm_id, backup_id), actor)

    # --- reading ------------------------------------------------------------------------------

    async def extents(
        self, vm_id: str, backup_id: str, key: str, offset: int
    ) -> tuple[tuple[BackupExtent, ...], int | None]:
        """What to copy of a disk from `offset` on, and where the next list begins."""
        session = self._session(vm_id, backup_id)
        point = self._point(session, key)
        found: list[Extent] = []
        try:
            reader = await self._open(session, point)
            try:
                while offset < reader.size_bytes and len(found) < _EXTENTS_MAX:
                    told = await reader.status(
                        offset, min(_STATUS_BYTES, reader.size_bytes - offset)
                    )
                    runs = told[ALLOCATION]
                    dirty = told[_context(point)] if point.delta is not None else None
                    found += extents_of(offset, runs, dirty)
                    spans = [runs] if dirty is None else [runs, dirty]
                    offset += min(sum(length for length, _ in span) for span in spans)
                size = reader.size_bytes
            finally:
                await reader.close()
        except NbdError as error:
            raise self._lost(session, error) from error
        told_extents = tuple(
            BackupExtent(offset=e.offset, length=e.length, zero=e.zero) for e in found
        )
        return told_extents, offset if offset < size else None

    async def read(
        self, vm_id: str, backup_id: str, key: str, offset: int, length: int
    ) -> socket.socket:
        """The bytes of a part of a disk, as a stream."""
        session = self._session(vm_id, backup_id)
        point = self._point(session, key)
        try:
            reader = await self._open(session, point)
        except NbdError as error:
            raise self._lost(session, error) from error
        if offset + length > reader.size_bytes:
            await reader.close()
            raise MicaError(ErrorCode.INVALID, f"Disk {key} has {reader.size_bytes} bytes only.")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._tasks.begin(_send(reader, ours, offset, length), f"{backup_id}-{key}")
        return theirs

    # --- checkpoints --------------------------------------------------------------------------

    async def checkpoints(self, vm_id: str) -> tuple[Checkpoint, ...]:
        """The checkpoints of a VM, by name."""
        driver = self._vms.driver(vm_id)
        await driver.ready()
        session = self._sessions.get(vm_id)
        if driver.state in AT_REST and session is None:
            inside = await checkpoints_of(driver)
            return tuple(Checkpoint(id=n, disks=tuple(inside[n])) for n in sorted(inside))

        async def look(running: RunningVm) -> list[point_in_time.Bitmap]:
            return await point_in_time.bitmaps(running.qmp, await _format_nodes(running))

        found: dict[str, list[CheckpointDisk]] = {}
        for bitmap in await self._with_qemu(driver, session, VmRequest.QUERY, look):
            found.setdefault(bitmap.name, []).append(
                CheckpointDisk(
                    key=bitmap.key,
                    dirty_bytes=bitmap.dirty_bytes,
                    usable=bitmap.usable,
                    persistent=bitmap.persistent,
                )
            )
        return tuple(Checkpoint(id=name, disks=tuple(found[name])) for name in sorted(found))

    async def delete_checkpoint(self, vm_id: str, checkpoint: str) -> None:
        """Forget a checkpoint on all disks."""
        driver = self._vms.driver(vm_id)
        await driver.ready()
        session = self._sessions.get(vm_id)
        if driver.state in AT_REST and session is None:
            await forget_checkpoint(driver, checkpoint)
            return

        async def forget(running: RunningVm) -> None:
            nodes = await _format_nodes(running)
            bitmaps = await point_in_time.bitmaps(running.qmp, nodes)
            mine = [bitmap for bitmap in bitmaps if bitmap.name == checkpoint]
            if not mine:
                raise MicaError(ErrorCode.NOT_FOUND, f"VM {vm_id} has no checkpoint {checkpoint}.")
            for bitmap in mine:
                await point_in_time.remove_bitmap(running.qmp, nodes[bitmap.key], checkpoint)

        await self._with_qemu(driver, session, VmRequest.OPERATE, forget)

    async def _with_qemu(
        self,
        driver: VmDriver,
        session: _Session | None,
        request: VmRequest,
        work: Callable[[RunningVm], Awaitable[Outcome]],
    ) -> Outcome:
        """Work with the QEMU that has the VM's disks open, whichever that is."""
        if session is None or session.still is None:
            return await self._vms.use(driver.vm_id, request, work)
        try:
            return await work(session.still.running)
        except QemuError as error:
            raise MicaError(ErrorCode.UNAVAILABLE, f"{error}") from error

    # --- small parts --------------------------------------------------------------------------

    async def _freeze(self, vm_id: str, still: contextlib.AsyncExitStack) -> bool:
        agent = self._vms.agent(vm_id)
        if not agent.connected:
            return False
        report = await still.enter_async_context(agent.frozen())
        return report.quiet

    async def _watch(self, session: _Session) -> None:
        """End the session when its time is over, or once its QEMU has ended."""
        loop = asyncio.get_running_loop()
        vm_id = session.backup.vm
        while self._sessions.get(vm_id) is session:
            await asyncio.sleep(_WATCH_S)
            if loop.time() > session.deadline:
                try:
                    await self._end(session, "time limit")
                except MicaError as error:  # QEMU doesn't answer: the hold must not stay for ever
                    _log.warning("%s", error)
                    continue
                return
            if self._is_gone(session):
                await self._forget(session)
                self._publish("vm.backup-ended", session.backup, "the end of the VM")
                return

    def _is_gone(self, session: _Session) -> bool:
        """True if the QEMU that the session is about has ended."""
        if session.still is not None:
            return not session.still.alive
        try:
            driver = self._vms.driver(session.backup.vm)
        except MicaError:
            return True
        return driver.state in AT_REST or driver.run_id != session.run

    async def _end(self, session: _Session, actor: str) -> None:
        async def away(running: RunningVm) -> None:
            await point_in_time.end(running.qmp, session.points)

        if session.still is not None:
            with contextlib.suppress(QemuError):
                await away(session.still.running)
        else:
            try:
                await self._vms.use(session.backup.vm, VmRequest.OPERATE, away)
            except MicaError as error:
                if error.problem.code is ErrorCode.UNAVAILABLE:
                    raise
        if await self._forget(session):
            self._publish("vm.backup-ended", session.backup, actor)

    async def _forget(self, session: _Session) -> bool:
        """Release everything; False if that is done elsewhere already."""
        if self._sessions.get(session.backup.vm) is not session:
            return False
        del self._sessions[session.backup.vm]
        await session.held.aclose()
        return True

    async def close(self) -> None:
        """Stop what reads the disks of VMs that are off; sessions of running VMs are ended by the
        next vmkernel (live_disks.py).
        """
        for session in list(self._sessions.values()):
            if session.still is not None:
                await self._end(session, "the end of the vmkernel")

    def _session(self, vm_id: str, backup_id: str) -> _Session:
        session = self._sessions.get(vm_id)
        if session is None or session.backup.id != backup_id:
            raise MicaError(
                ErrorCode.NOT_FOUND, f"There is no backup {backup_id[:80]!r} of VM {vm_id} now."
            )
        return session

    def _point(self, session: _Session, key: str) -> DiskPoint:
        for point in session.points:
            if point.key == key:
                return point
        raise MicaError(
            ErrorCode.NOT_FOUND, f"Backup {session.backup.id} has no disk {key[:40]!r}."
        )

    async def _open(self, session: _Session, point: DiskPoint) -> NbdReader:
        contexts = [ALLOCATION]
        if point.delta is not None:
            contexts.append(_context(point))
        return await NbdReader.open(session.path, point.name, contexts)

    def _lost(self, session: _Session, error: NbdError) -> MicaError:
        return MicaError(
            ErrorCode.CONFLICT,
            f"Backup {session.backup.id} can't be read any more ({error}): end it, and begin a"
            " new one.",
        )

    def _publish(self, event: str, backup: Backup, actor: str) -> None:
        self._host.events.publish(
            event, Subject(kind="vm", id=backup.vm), actor=actor, data={"backup": backup.id}
        )


def _context(point: DiskPoint) -> str:
    return f"qemu:dirty-bitmap:{point.delta}"


async def _format_nodes(running: RunningVm) -> dict[str, str]:
    return {
        disk.key: await block_graph.top_format_node(running.qmp, disk.key)
        for disk in running.definition.spec.disks
        if disk.key is not None
    }


async def _make_point(
    running: RunningVm,
    scratches: dict[str, Path],
    checkpoint: str | None,
    since: str | None,
) -> tuple[tuple[DiskPoint, ...], str | None]:
    """The instant, and which QEMU it is about."""
    qmp = running.qmp
    nodes = await _format_nodes(running)
    bitmaps = {(b.key, b.name): b for b in await point_in_time.bitmaps(qmp, nodes)}
    names = {str(n) for _, n in bitmaps}
    if checkpoint is not None and checkpoint in names:
        raise MicaError.field(
            "/checkpoint", f"There is a checkpoint {checkpoint} already.", ErrorCode.CONFLICT
        )
    for key in scratches if since is not None else ():
        found = bitmaps.get((key, since or ""))
        if found is None or not found.usable:
            what = "is not there (any more)" if found is None else "was lost in a crash"
            raise MicaError.field(
                "/since",
                f"The checkpoint {since} of {key} {what}: make a full backup, without `since`.",
                ErrorCode.CONFLICT,
            )
    points: list[DiskPoint] = []
    persistent = await _persistent(running, nodes)
    path = running.folder.nbd
    try:
        for key, scratch in scratches.items():
            point = DiskPoint(
                key=key,
                node=nodes[key],
                scratch="",
                tag=secrets.token_hex(3),
                persistent=persistent[key],
                since=since,
                checkpoint=checkpoint,
            )
            given = await block_graph.give_file(qmp, scratch, point.file_node, read_only=False)
            points.append(replace(point, scratch=str(given.path)))
        with contextlib.closing(listen_stream(path)) as listener:
            await point_in_time.serve(qmp, listener.fileno())
        await point_in_time.begin(qmp, points)
    except (QemuError, OSError) as error:
        with contextlib.suppress(QemuError):
            await point_in_time.end(qmp, points)
        for point in points:
            with contextlib.suppress(QemuError):
                await block_graph.take_file_back(qmp, point.file_node)
        if isinstance(error, OSError):
            raise from_os_error(error, f"The backup of VM {running.vm_id}") from error
        raise
    return tuple(points), running.record.run if running.record is not None else None


async def _drop_points(
    running: RunningVm, points: tuple[DiskPoint, ...], checkpoint: str | None
) -> None:
    """Undo `_make_point`, its checkpoint included."""
    with contextlib.suppress(QemuError):
        await point_in_time.end(running.qmp, points)
    for point in points if checkpoint is not None else ():
        with contextlib.suppress(QemuError):
            await point_in_time.remove_bitmap(running.qmp, point.node, checkpoint or "")


async def _nameless(vm_id: str, folder: Path) -> IO[bytes]:
    try:
        return os.fdopen(await asyncio.to_thread(create_nameless, folder), "w+b")
    except OSError as error:
        raise from_os_error(error, f"The backup of VM {vm_id}") from error


def _save(file: IO[bytes], definition: VmDefinition, folder: Path) -> None:
    state = read_state(definition, folder)
    try:
        file.write(msgspec.msgpack.encode(SavedVm(spec=definition.spec, machine=state)))
        file.flush()
    except OSError as error:
        raise from_os_error(error, f"The backup of VM {definition.id}") from error


async def _persistent(running: RunningVm, nodes: dict[str, str]) -> dict[str, bool]:
    """Which disks can keep a checkpoint: those in qcow2 that are open for writing."""
    able = {
        node.node_name
        for node in await point_in_time.named_nodes(running.qmp)
        if node.drv == VolumeFormat.QCOW2.value and not node.ro
    }
    return {key: node in able for key, node in nodes.items()}


async def _send(reader: NbdReader, stream: socket.socket, offset: int, length: int) -> None:
    """Read at the pace of the stream's reader; it ends early if reading fails."""
    loop = asyncio.get_running_loop()
    try:
        while length:
            data = await reader.read(offset, min(length, MAX_READ_BYTES))
            async with asyncio.timeout(_SILENCE_S):
                await loop.sock_sendall(stream, data)
            offset += len(data)
            length -= len(data)
    except (NbdError, OSError, TimeoutError) as error:
        _log.warning("a backup's stream ended early: %s", error)
    finally:
        stream.close()
        await reader.close()
