"""QEMUs that are objects: the launcher's and QMP's real interfaces over a guest made of flags."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from vmkernel.qemu import (
    DeviceGone,
    EventWatch,
    GuestEnded,
    GuestReset,
    Paused,
    QemuEvent,
    QmpCommandError,
    QmpLostError,
    QmpMessage,
    Resumed,
    RunState,
)
from vmkernel.qemu.answers import decode_answer
from vmkernel.vm.launch.launcher import LaunchRequest

__all__ = ["FakeLauncher", "FakeQemu", "FakeQmp"]


Answer = TypeVar("Answer")

_LISTS = frozenset(
    {
        "query-block",
        "query-blockstats",
        "query-chardev",
        "query-hotpluggable-cpus",
        "query-jobs",
        "query-memory-devices",
        "query-named-block-nodes",
        "qom-list",
    }
)
_DEVICE = re.compile(r'"id":"((?:disk|nic)\d+|cdrom\d+-bot)"')


@dataclass(eq=False)
class FakeQemu:
    """One QEMU process."""

    request: LaunchRequest
    fds: list[int]
    """Its copies of the descriptors: the sockets exist as long as it lives."""
    status: RunState = RunState.PRELAUNCH
    alive: bool = True
    obeys: bool = True
    """True where the guest shuts down when its power button is pressed."""
    boots: int = 0
    """How many presses of the power button it still loses, because it boots."""
    presses: int = 0
    answers: bool = True
    """False where QMP hangs: connections are not greeted."""
    hangs: bool = False
    """True where QMP is connected and no command is answered any more."""
    status_fails: int = 0
    """How often `query-status` still loses the connection."""
    code: str | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    resets: int = 0
    sessions: list[FakeQmp] = field(default_factory=list)
    serial: list[socket.socket] = field(default_factory=list)
    commands: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What `execute` was asked."""
    replies: dict[str, Any] = field(default_factory=dict)
    """Command -> what it answers: a value, an exception, or a function of the arguments."""
    watches: list[EventWatch] = field(default_factory=list)
    fdsets: dict[int, int] = field(default_factory=dict)
    opaque: dict[int, str] = field(default_factory=dict)
    memory: bytes = b"fresh"
    """What the guest knows."""
    migration: dict[str, Any] = field(default_factory=dict)
    """What `query-migrate` answers."""
    slow: bool = False
    """True where saving its memory never ends by itself."""
    devices: set[str] = field(default_factory=set)
    """The ids of its disks and cards."""
    named_fds: dict[str, int] = field(default_factory=dict)
    """What `getfd` was given."""
    at_end: list[Callable[[], None]] = field(default_factory=list)
    """Called once it has ended."""
    ports: dict[str, str] = field(default_factory=dict)
    """The USB ports of devices."""
    keeps: set[str] = field(default_factory=set)
    """Those of devices that the guest doesn't let go when it is asked."""

    def __post_init__(self) -> None:
        self.devices |= set(_DEVICE.findall("\n".join(self.request.arguments)))
        given = [text for text in self.request.arguments if text.startswith('{"driver":')]
        for device in map(json.loads, given):
            self.note_port(device)
        if "-incoming" in self.request.arguments:
            self.status = RunState.IN_MIGRATE

    def note_port(self, device: Mapping[str, Any]) -> None:
        """Remember where on USB a device hangs."""
        if device.get("bus") == "usb.0":
            assert device["port"] not in self.ports.values(), "two devices on one port"
            self.ports[device["id"]] = device["port"]

    def lose(self, device: str) -> None:
        """The guest lets go of a device, asked or not; QEMU says so if anyone listens."""
        self.devices.discard(device)
        self.ports.pop(device, None)
        self.say(DeviceGone(device))

    def migrate(self, arguments: Mapping[str, Any]) -> None:
        """Save the memory to the file that the command names."""
        fd = self.fdsets[int(arguments["uri"].rpartition("/")[2])]
        assert self.status is not RunState.RUNNING
        if self.slow:
            self.migration = {"status": "active", "ram": {"total": 100, "remaining": 90}}
            return
        os.write(fd, b"IMAGE " + self.memory)
        self.status = RunState.POST_MIGRATE
        self.migration = {"status": "completed", "ram": {"total": 100, "remaining": 0}}

    def migrate_incoming(self, arguments: Mapping[str, Any]) -> None:
        """Load the memory from the file that the command names."""
        assert self.status is RunState.IN_MIGRATE
        data = os.read(self.fdsets[int(arguments["uri"].rpartition("/")[2])], 1 << 16)
        if not data.startswith(b"IMAGE "):
            self.migration = {"status": "failed", "error-desc": "not a state"}
            return
        self.memory = data.removeprefix(b"IMAGE ")
        self.status = RunState.PAUSED
        self.migration = {"status": "completed"}

    def happens(self, event: str, **data: Any) -> None:
        """Report a QMP event to those who watch for it."""
        for watch in list(self.watches):
            watch.offer(QmpMessage(event, msgspec.Raw(msgspec.json.encode(data))))

    def say(self, event: QemuEvent) -> None:
        """Tell the open sessions."""
        for session in self.sessions:
            session.events.put_nowait(event)

    def die(self, code: str | None = "ended by signal 9") -> None:
        """End without a word (or, with None, in order)."""
        if not self.alive:
            return
        self.alive, self.code = False, code
        self.gone.set()
        for fd in (*self.fds, *self.fdsets.values(), *self.named_fds.values()):
            os.close(fd)
        self.fdsets.clear()
        self.named_fds.clear()
        for told in self.at_end:
            told()
        for session in self.sessions:
            session.events.put_nowait(None)
        for watch in list(self.watches):
            watch.offer(None)

    def drop_sessions(self) -> None:
        """QMP breaks, the process lives."""
        for session in self.sessions:
            session.lost = True
            session.events.put_nowait(None)
        self.sessions.clear()

    def end(self, *, by_guest: bool, cause: str) -> None:
        """Switch off in order."""
        if self.alive:
            self.say(GuestEnded(by_guest, cause))
            self.die(None)

    def pause(self, why: RunState = RunState.PAUSED) -> None:
        """The guest stands still, as after a disk error."""
        if self.alive and self.status is RunState.RUNNING:
            self.status = why
            self.say(Paused())

    def resume(self) -> None:
        """The guest goes on."""
        if self.alive and self.status is not RunState.RUNNING:
            self.status = RunState.RUNNING
            self.say(Resumed())


class FakeQmp:
    """See Qmp."""

    def __init__(self, qemu: FakeQemu, sock: socket.socket) -> None:
        self.qemu = qemu
        self.sock = sock
        self.events: asyncio.Queue[QemuEvent | None] = asyncio.Queue()
        self.lost = False
        qemu.sessions.append(self)

    async def next_event(self) -> QemuEvent:
        event = await self.events.get()
        if event is None:
            self.events.put_nowait(None)
            raise QmpLostError("gone")
        return event

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> None:
        await self._answer(command, arguments, timeout_s)

    async def ask(
        self,
        command: str,
        answer: type[Answer],
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> Answer:
        reply = await self._answer(command, arguments, timeout_s)
        return decode_answer("fake", command, msgspec.json.encode(reply), answer)

    async def _answer(
        self,
        command: str,
        arguments: Mapping[str, Any] | None,
        timeout_s: float,  # noqa: ARG002 - QMP's
    ) -> Any:
        self._check()
        self.qemu.commands.append((command, dict(arguments or {})))
        match command:
            case "migrate":
                self.qemu.migrate(arguments or {})
            case "migrate-incoming":
                self.qemu.migrate_incoming(arguments or {})
            case "migrate_cancel":
                self.qemu.migration = {"status": "cancelled"}
            case "query-migrate" if command not in self.qemu.replies:
                return dict(self.qemu.migration)
            case "qom-list" if command not in self.qemu.replies:
                return [{"name": name, "type": "child"} for name in sorted(self.qemu.devices)]
            case "qom-get" if (arguments or {}).get("property") == "port":
                return self.qemu.ports[str((arguments or {})["path"]).rpartition("/")[2]]
            case "query-fdsets" if command not in self.qemu.replies:
                opaque = self.qemu.opaque
                return [{"fdset-id": n, "fds": [{"opaque": opaque[n]}]} for n in self.qemu.fdsets]
            case "device_add" if command not in self.qemu.replies:
                self.qemu.devices.add(str((arguments or {})["id"]))
                self.qemu.note_port(arguments or {})
            case "device_del" if command not in self.qemu.replies:
                device = str((arguments or {})["id"])
                if device not in self.qemu.keeps:
                    self.qemu.lose(device)
            case _:
                pass
        reply = self.qemu.replies.get(command, [] if command in _LISTS else {})
        if callable(reply):
            reply = reply(arguments or {})
        if isinstance(reply, Exception):
            raise reply
        return reply

    @contextlib.contextmanager
    def watch(self, *events: str) -> Iterator[EventWatch]:
        watch = EventWatch("fake", frozenset(events))
        self.qemu.watches.append(watch)
        try:
            yield watch
        finally:
            self.qemu.watches.remove(watch)

    async def query_status(self) -> RunState:
        self._check()
        if self.qemu.status_fails:
            self.qemu.status_fails -= 1
            raise QmpLostError("no answer within 30 s")
        return self.qemu.status

    async def cont(self) -> None:
        self._check()
        if self.qemu.status in (RunState.INTERNAL_ERROR, RunState.GUEST_PANICKED):
            raise QmpCommandError("Resetting the Virtual Machine is required")
        self.qemu.resume()

    async def stop(self) -> None:
        self._check()
        self.qemu.pause()

    async def name_fd(self, fd: int, name: str) -> None:
        self._check()
        if name in self.qemu.named_fds:
            os.close(self.qemu.named_fds[name])
        self.qemu.named_fds[name] = os.dup(fd)
        self.qemu.commands.append(("getfd", {"fdname": name}))

    async def add_fd(self, fd: int, opaque: str = "") -> int:
        self._check()
        number = max(self.qemu.fdsets, default=-1) + 1
        self.qemu.opaque[number] = opaque
        self.qemu.fdsets[number] = os.dup(fd)
        return number

    async def remove_fd(self, fdset: int) -> None:
        self._check()
        os.close(self.qemu.fdsets.pop(fdset))

    async def system_powerdown(self) -> None:
        self._check()
        self.qemu.presses += 1
        if self.qemu.boots:
            self.qemu.boots -= 1
        elif self.qemu.obeys:
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: self.qemu.end(by_guest=True, cause="guest-shutdown"))

    async def system_reset(self) -> None:
        self._check()
        self.qemu.resets += 1
        if self.qemu.status in (RunState.INTERNAL_ERROR, RunState.GUEST_PANICKED):
            self.qemu.status = RunState.PRELAUNCH
        self.qemu.happens("RESET", guest=False)
        self.qemu.say(GuestReset(by_guest=False))

    async def quit(self) -> None:
        self._check()
        if self.qemu.hangs:
            await asyncio.Event().wait()
        self.qemu.end(by_guest=False, cause="host-qmp-quit")

    async def ringbuf_read(self, device: str, size: int) -> bytes:  # noqa: ARG002
        self._check()
        return b"earlier"

    async def add_vnc_client(self, fd: int) -> None:
        self._check()
        if "-vnc" not in self.qemu.request.arguments:
            raise QmpCommandError("no VNC server")
        with socket.socket(fileno=os.dup(fd)) as client:
            client.send(b"RFB 003.008\n")

    async def close(self) -> None:
        self.lost = True
        self.sock.close()
        if self in self.qemu.sessions:
            self.qemu.sessions.remove(self)
        self.events.put_nowait(None)

    def _check(self) -> None:
        if self.lost or not self.qemu.alive:
            raise QmpLostError("gone")


class FakeLauncher:
    """See Launcher; it outlives the services that use it, as systemd does."""

    def __init__(self) -> None:
        self.qemus: dict[str, FakeQemu] = {}
        self.launched = 0
        self.fail_next: str | None = None
        """What the next QEMU says before it ends at once."""

    def fd_number(self, index: int, fd: int) -> int:  # noqa: ARG002
        return fd

    async def launch(self, request: LaunchRequest) -> None:
        old = self.qemus.get(request.vm_id)
        assert old is None or not old.alive, "two QEMUs of one VM"
        qemu = FakeQemu(request, [os.dup(fd) for fd in request.fds])
        self.qemus[request.vm_id] = qemu
        self.launched += 1
        if self.fail_next is not None:
            os.write(request.log, self.fail_next.encode())
            self.fail_next = None
            qemu.die("exit code 1")

    def is_active(self, vm_id: str) -> bool:
        qemu = self.qemus.get(vm_id)
        return qemu is not None and qemu.alive

    def main_pid(self, vm_id: str) -> int | None:
        return os.getpid() if self.is_active(vm_id) else None

    async def wait_gone(self, vm_id: str, timeout_s: float) -> bool:
        if not self.is_active(vm_id):
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self.qemus[vm_id].gone.wait()
        except TimeoutError:
            return False
        return True

    def kill(self, vm_id: str) -> None:
        if vm_id in self.qemus:
            self.qemus[vm_id].die()

    async def collect(self, vm_id: str) -> str | None:
        qemu = self.qemus.get(vm_id)
        if qemu is None or qemu.alive:
            return None
        del self.qemus[vm_id]
        return qemu.code

    async def close(self) -> None:
        """Nothing is held."""

    async def open_qmp(self, sock: socket.socket, name: str, timeout_s: float) -> FakeQmp:
        """What QmpSession.open does."""
        qemu = self.qemus[name]
        if not qemu.alive:
            sock.close()
            raise QmpLostError("gone")
        if not qemu.answers:
            await asyncio.sleep(timeout_s)
            sock.close()
            raise TimeoutError
        return FakeQmp(qemu, sock)
