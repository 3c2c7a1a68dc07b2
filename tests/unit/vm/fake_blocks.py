"""QEMUs whose block layer is modelled: nodes, dirty bitmaps, transactions, backup jobs and exports,
as far as backups use them, with a real NBD server on the socket that QEMU is given.

What QEMU refuses is refused here: a node that is there or in use, a bitmap that is there, a
transaction of which one action is refused. Source: qapi/block-core.json, block-export.json and
docs/interop/bitmaps.rst of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.framework import nbd_wire
from tests.unit.vm.fake_qemu import FakeLauncher, FakeQemu
from vmkernel.qemu import QmpCommandError
from vmkernel.vm.launch.launcher import LaunchRequest

__all__ = ["BlockLauncher", "Blocks", "CLUSTER"]

CLUSTER = 1 << 16


@dataclass
class _Bitmap:
    persistent: bool
    recording: bool = True
    inconsistent: bool = False
    dirty: set[int] = field(default_factory=set)
    """Clusters."""


@dataclass
class _Job:
    target: str
    content: bytes
    """What the disk held when the job began: what is overwritten goes to the target before."""
    status: str = "running"


class BlockLauncher(FakeLauncher):
    """Its QEMUs have a block layer; what qcow2 files keep of bitmaps outlives them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[str, Blocks] = {}
        self.kept: dict[Path, dict[str, _Bitmap]] = {}
        """The persistent bitmaps in files."""
        self.refuse: set[str] = set()
        """What QEMUs that are started from now on refuse; see Blocks."""

    async def launch(self, request: LaunchRequest) -> None:
        await super().launch(request)
        self.blocks[request.vm_id] = Blocks(self.qemus[request.vm_id], self.kept)
        self.blocks[request.vm_id].refuse |= self.refuse


class Blocks:
    """The block layer of one QEMU, as its command line made it."""

    def __init__(self, qemu: FakeQemu, kept: dict[Path, dict[str, _Bitmap]]) -> None:
        self.qemu = qemu
        self.nodes: dict[str, dict[str, Any]] = {}
        self.bitmaps: dict[str, dict[str, _Bitmap]] = {}
        self.jobs: dict[str, _Job] = {}
        self.exports: dict[str, dict[str, Any]] = {}
        self.refuse: set[str] = set()
        """Commands, and kinds of actions, that are refused."""
        self.at_instant: Callable[[], None] = lambda: None
        """Called when a transaction is carried out."""
        self.handshakes_max_s = True
        """False for a QEMU before 10.0, which doesn't know the option."""
        self.clients = 0
        self._kept = kept
        self._server: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        for option, value in zip(qemu.request.arguments, qemu.request.arguments[1:], strict=False):
            if option == "-blockdev":
                self._add(json.loads(value))
        for command in (
            "block-dirty-bitmap-remove",
            "block-export-add",
            "block-export-del",
            "blockdev-add",
            "blockdev-del",
            "job-cancel",
            "job-dismiss",
            "nbd-server-start",
            "nbd-server-stop",
            "query-blockstats",
            "query-jobs",
            "query-named-block-nodes",
            "transaction",
        ):
            qemu.replies[command] = self._answer(command)
        qemu.at_end.append(self._end)

    # --- what tests do ------------------------------------------------------------------------

    def write(self, key: str, offset: int, data: bytes) -> None:
        """The guest writes."""
        path = self._path(key)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        below = self.nodes[key]["file"]
        touched = range(offset // CLUSTER, (offset + len(data) - 1) // CLUSTER + 1)
        for bitmap in self.bitmaps[below].values():
            if bitmap.recording:
                bitmap.dirty.update(touched)

    def left(self) -> list[str]:
        """What is there of a backup: nodes, jobs, exports, bitmaps, files, the server."""
        if not self.qemu.alive:
            return []
        found = [name for name in self.nodes if name.startswith("backup-")]
        found += [*self.jobs, *self.exports]
        found += [name for of in self.bitmaps.values() for name in of if name.startswith("backup-")]
        found += [f"fdset {number}" for number in self.qemu.fdsets]
        return found + (["NBD server"] if self._server is not None else [])

    def checkpoints(self) -> set[str]:
        """The names of all checkpoints' bitmaps."""
        return {n for of in self.bitmaps.values() for n in of if n.startswith("checkpoint-")}

    def answer_again(self, command: str) -> None:
        """After a test has put something in the place of its answer."""
        self.qemu.replies[command] = self._answer(command)

    def disconnect(self) -> None:
        """Close the connections of NBD's clients."""
        for task in self._tasks:
            task.cancel()

    # --- QMP ----------------------------------------------------------------------------------

    def _answer(self, command: str) -> Callable[[Mapping[str, Any]], Any]:
        def answer(arguments: Mapping[str, Any]) -> Any:
            try:
                if command in self.refuse:
                    raise QmpCommandError(f"{command} is refused")
                return getattr(self, f"_{command.replace('-', '_')}")(arguments)
            except QmpCommandError as error:
                return error

        return answer

    def _query_blockstats(self, _: Mapping[str, Any]) -> Any:
        def told(name: str) -> dict[str, Any]:
            node = self.nodes[name]
            below = {"parent": told(node["file"])} if "file" in node else {}
            return {"node-name": name, **below}

        return [told(name) for name in self.nodes]

    def _query_named_block_nodes(self, _: Mapping[str, Any]) -> Any:
        return [
            {
                "node-name": name,
                "drv": node["driver"],
                "ro": node.get("read-only", False),
                "dirty-bitmaps": [
                    {
                        "name": called,
                        "count": len(bitmap.dirty) * CLUSTER,
                        "recording": bitmap.recording,
                        "inconsistent": bitmap.inconsistent,
                        "persistent": bitmap.persistent,
                    }
                    for called, bitmap in self.bitmaps[name].items()
                ],
            }
            for name, node in self.nodes.items()
        ]

    def _query_jobs(self, _: Mapping[str, Any]) -> Any:
        return [{"id": name, "status": job.status} for name, job in self.jobs.items()]

    def _blockdev_add(self, arguments: Mapping[str, Any]) -> None:
        filename = arguments.get("filename", "")
        if filename.startswith("/dev/fdset/"):
            number = int(filename.removeprefix("/dev/fdset/"))
            if number not in self.qemu.fdsets:
                raise QmpCommandError(f"Could not open '{filename}': No such file or directory")
        self._add(arguments)

    def _blockdev_del(self, arguments: Mapping[str, Any]) -> None:
        name = arguments["node-name"]
        if name not in self.nodes:
            raise QmpCommandError(f"Failed to find node with node-name='{name}'")
        users = [n for n, node in self.nodes.items() if name in (node.get("file"), node["backing"])]
        users += [n for n, job in self.jobs.items() if job.target == name]
        users += [n for n, export in self.exports.items() if export["node-name"] == name]
        if users:
            raise QmpCommandError(f"Node '{name}' is busy: {users}")
        del self.nodes[name], self.bitmaps[name]

    def _block_dirty_bitmap_add(self, data: Mapping[str, Any]) -> None:
        found = self._bitmaps_of(data["node"])
        if data["name"] in found:
            raise QmpCommandError(f"Bitmap already exists: {data['name']}")
        persistent = data.get("persistent", False)
        if persistent and self.nodes[data["node"]]["driver"] != "qcow2":
            raise QmpCommandError("Cannot store dirty bitmaps in this format")
        found[data["name"]] = _Bitmap(persistent, recording=not data.get("disabled", False))

    def _block_dirty_bitmap_merge(self, data: Mapping[str, Any]) -> None:
        found = self._bitmaps_of(data["node"])
        for name in data["bitmaps"]:
            if name not in found or found[name].inconsistent:
                raise QmpCommandError(f"Dirty bitmap '{name}' not found or inconsistent")
            found[data["target"]].dirty |= found[name].dirty

    def _block_dirty_bitmap_remove(self, data: Mapping[str, Any]) -> None:
        found = self._bitmaps_of(data["node"])
        if data["name"] not in found:
            raise QmpCommandError(f"Dirty bitmap '{data['name']}' not found")
        if any(
            data["name"] == told["name"]
            for export in self.exports.values()
            for told in export.get("bitmaps", ())
        ):
            raise QmpCommandError(f"Bitmap '{data['name']}' is currently in use")
        del found[data["name"]]

    def _blockdev_backup(self, data: Mapping[str, Any]) -> None:
        assert (data["sync"], data["auto-dismiss"]) == ("none", False)
        if data["target"] not in self.nodes or data["job-id"] in self.jobs:
            raise QmpCommandError("no such target, or the job is there")
        self.jobs[data["job-id"]] = _Job(data["target"], self._path(data["device"]).read_bytes())

    def _transaction(self, arguments: Mapping[str, Any]) -> None:
        """All or nothing."""
        bitmaps = {
            node: {name: _copy(bitmap) for name, bitmap in found.items()}
            for node, found in self.bitmaps.items()
        }
        jobs = dict(self.jobs)
        try:
            for action in arguments["actions"]:
                if action["type"] in self.refuse:
                    raise QmpCommandError(f"{action['type']} is refused")
                getattr(self, f"_{action['type'].replace('-', '_')}")(action["data"])
        except QmpCommandError:
            for node, found in bitmaps.items():
                self.bitmaps[node].clear()
                self.bitmaps[node].update(found)
            self.jobs = jobs
            raise
        self.at_instant()

    def _job_cancel(self, arguments: Mapping[str, Any]) -> None:
        self.jobs[arguments["id"]].status = "concluded"

    def _job_dismiss(self, arguments: Mapping[str, Any]) -> None:
        assert self.jobs.pop(arguments["id"]).status == "concluded"

    def _block_export_add(self, arguments: Mapping[str, Any]) -> None:
        if self._server is None:
            raise QmpCommandError("NBD server not running")
        if arguments["id"] in self.exports or arguments["node-name"] not in self.nodes:
            raise QmpCommandError(f"Block export id '{arguments['id']}' is already in use")
        self.exports[arguments["id"]] = dict(arguments)

    def _block_export_del(self, arguments: Mapping[str, Any]) -> None:
        if self.exports.pop(arguments["id"], None) is None:
            raise QmpCommandError(f"Export '{arguments['id']}' is not found")
        self.disconnect()

    def _nbd_server_start(self, arguments: Mapping[str, Any]) -> None:
        if self._server is not None:
            raise QmpCommandError("NBD server already running")
        if "handshake-max-seconds" in arguments and not self.handshakes_max_s:
            raise QmpCommandError("Parameter 'handshake-max-seconds' is unexpected")
        fd = self.qemu.named_fds.pop(arguments["addr"]["data"]["str"])
        self._server = socket.socket(fileno=fd)
        self._server.setblocking(False)
        asyncio.get_running_loop().add_reader(self._server, self._accept)

    def _nbd_server_stop(self, _: Mapping[str, Any]) -> None:
        if self._server is None:
            raise QmpCommandError("NBD server not running")
        self.exports.clear()
        self._stop()

    # --- the NBD server -----------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._server is not None
        with contextlib.suppress(BlockingIOError):
            client, _ = self._server.accept()
            client.setblocking(False)
            task = asyncio.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        self.clients += 1
        reader, writer = await asyncio.open_unix_connection(sock=client)
        try:
            writer.write(nbd_wire.GREETING)
            await reader.readexactly(4)
            export, contexts = await self._negotiate(reader, writer)
            content = self.jobs[export].content
            while True:
                command, cookie, offset, length = await nbd_wire.read_request(reader)
                if command == nbd_wire.DISCONNECT:
                    return
                if command == nbd_wire.READ:
                    data = struct.pack(">Q", offset) + content[offset : offset + length]
                    nbd_wire.chunk(writer, 1, 1, cookie, data)
                else:
                    for number, name in enumerate(contexts):
                        flags = int(number + 1 == len(contexts))
                        runs = self._runs(export, name, content, offset, length)
                        nbd_wire.chunk(writer, flags, 5, cookie, struct.pack(">I", number) + runs)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, KeyError):
            return
        finally:
            self.clients -= 1
            writer.close()

    async def _negotiate(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, list[str]]:
        """The export's name, and the contexts that are told of it."""
        contexts: list[str] = []
        while True:
            option, data = await nbd_wire.read_option(reader)
            if option in (nbd_wire.OPT_META, nbd_wire.OPT_GO):
                (size,) = struct.unpack_from(">I", data)
                name, rest = data[4 : 4 + size].decode(), data[4 + size :]
                if name not in self.exports:
                    nbd_wire.reply(writer, option, (1 << 31) | 6, b"no such export")
                    await writer.drain()
                    raise KeyError(name)
            if option == nbd_wire.OPT_META:
                (count,) = struct.unpack_from(">I", rest)
                rest = rest[4:]
                for _ in range(count):
                    (size,) = struct.unpack_from(">I", rest)
                    context, rest = rest[4 : 4 + size].decode(), rest[4 + size :]
                    told = struct.pack(">I", len(contexts)) + context.encode()
                    nbd_wire.reply(writer, option, 4, told)
                    contexts.append(context)
            if option == nbd_wire.OPT_GO:
                size = len(self.jobs[name].content)
                nbd_wire.reply(writer, option, 3, struct.pack(">HQH", 0, size, 3))
            nbd_wire.reply(writer, option, 1, b"")
            if option == nbd_wire.OPT_GO:
                return name, contexts

    def _runs(self, export: str, context: str, content: bytes, offset: int, length: int) -> bytes:
        """Runs of whole clusters."""
        found = b""
        for at in range(offset, offset + length, CLUSTER):
            size = min(CLUSTER, offset + length - at)
            if context == "base:allocation":
                flags = 0 if any(content[at : at + size]) else 3
            else:
                (told,) = self.exports[export]["bitmaps"]
                assert context == f"qemu:dirty-bitmap:{told['name']}"
                flags = int(at // CLUSTER in self.bitmaps[told["node"]][told["name"]].dirty)
            found += struct.pack(">II", size, flags)
        return found

    # --- small parts --------------------------------------------------------------------------

    def _add(self, node: Mapping[str, Any]) -> None:
        name = node["node-name"]
        if name in self.nodes:
            raise QmpCommandError(f"Duplicate nodes with node-name='{name}'")
        for below in (node.get("file"), node.get("backing")):
            if below is not None and below not in self.nodes:
                raise QmpCommandError(f"Cannot find device='' nor node-name='{below}'")
        self.nodes[name] = {"backing": None, **node}
        self.bitmaps[name] = {}
        if node["driver"] == "qcow2":
            self.bitmaps[name] = self._kept.setdefault(self._path(name), {})

    def _bitmaps_of(self, node: str) -> dict[str, _Bitmap]:
        if node not in self.bitmaps:
            raise QmpCommandError(f"Cannot find device='' nor node-name='{node}'")
        return self.bitmaps[node]

    def _path(self, name: str) -> Path:
        node = self.nodes[name]
        return Path(node["filename"]) if "filename" in node else self._path(node["file"])

    def _stop(self) -> None:
        if self._server is not None:
            asyncio.get_running_loop().remove_reader(self._server)
            self._server.close()
            self._server = None
        self.disconnect()

    def _end(self) -> None:
        """QEMU has ended: persistent bitmaps stay, whole only if it ended in order."""
        for name, node in self.nodes.items():
            if node["driver"] == "qcow2":
                found = self._kept[self._path(name)]
                for called in [called for called, bitmap in found.items() if not bitmap.persistent]:
                    del found[called]
                for bitmap in found.values():
                    bitmap.inconsistent |= self.qemu.code is not None
        self._stop()


def _copy(bitmap: _Bitmap) -> _Bitmap:
    return _Bitmap(bitmap.persistent, bitmap.recording, bitmap.inconsistent, set(bitmap.dirty))
