"""The serial line: scrollback, watchers, and that nobody holds up anybody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.framework.running import on_loop
from vmkernel.model import (
    CONTROL,
    DATA,
    MAX_CONSOLE_BYTES,
    ConsoleAsk,
    ConsoleMode,
    ConsoleNotice,
    ErrorCode,
    MicaError,
)
from vmkernel.vm.guest.serial_console import STALL_S, Scrollback, SerialConsole, merge_overlap


def test_scrollback_keeps_the_end() -> None:
    ring = Scrollback(8)
    for text in (b"abc", b"def", b"ghi", b"jkl", b"m"):
        ring.append(text)
    assert ring.content() == b"fghijklm"
    ring.append(b"0123456789")
    assert ring.content() == b"23456789"
    ring.clear()
    assert ring.content() == b""


@pytest.mark.parametrize(
    ("old", "new", "joined"),
    [
        (b"", b"", b""),
        (b"abc", b"", b"abc"),
        (b"", b"abc", b"abc"),
        (b"abc", b"def", b"abcdef"),
        (b"abcde", b"de", b"abcde"),
        (b"abcde", b"def", b"abcdef"),
        (b"xaxa", b"xaxab", b"xaxab"),
    ],
)
def test_overlap_counts_once(old: bytes, new: bytes, joined: bytes) -> None:
    assert merge_overlap(old, new) == joined


class Seat:
    """Somebody at a console: takes its messages apart."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.notices: list[ConsoleNotice] = []

    async def receive(self, count: int) -> bytes:
        """At least so many bytes of the line, or what came before its end."""
        data = b""
        while len(data) < count:
            message = await self._message()
            if not message:
                break
            data += message[1:]
        return data

    async def notice(self) -> ConsoleNotice:
        """The next notice."""
        while not self.notices:
            assert await self._message(), "the console ended"
        return self.notices.pop(0)

    async def ask(self, mode: ConsoleMode) -> None:
        """Say what is wanted."""
        await self._send(CONTROL + msgspec.json.encode(ConsoleAsk(mode=mode)))

    async def type(self, data: bytes) -> None:
        """Type."""
        await self._send(DATA + data)

    async def _send(self, message: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, message)
        await asyncio.sleep(0.01)

    async def _message(self) -> bytes:
        """The next message; a notice is put aside."""
        loop = asyncio.get_running_loop()
        message = await asyncio.wait_for(loop.sock_recv(self.sock, MAX_CONSOLE_BYTES), 5)
        if message.startswith(CONTROL):
            self.notices.append(msgspec.json.decode(message[1:], type=ConsoleNotice))
            return CONTROL
        return message


class Line:
    """A console with its guest."""

    def __init__(self) -> None:
        ours, self.guest = socket.socketpair()
        self.guest.setblocking(False)
        self.taken_over: list[tuple[str, str]] = []
        self.console = SerialConsole(lambda who, whom: self.taken_over.append((who, whom)))
        self.console.attach(ours)

    def seat(self, name: str = "somebody") -> Seat:
        """Somebody new."""
        return Seat(self.console.watch(name))

    async def says(self, data: bytes) -> None:
        """The guest says something."""
        await asyncio.get_running_loop().sock_sendall(self.guest, data)
        await asyncio.sleep(0.01)

    async def heard(self, count: int) -> bytes:
        """What the guest was told."""
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < count:
            data += await asyncio.wait_for(loop.sock_recv(self.guest, count - len(data)), 5)
        return data

    def heard_more(self) -> bool:
        """True where something more waits for the guest."""
        try:
            return bool(self.guest.recv(1))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """The end."""
        self.console.close()
        self.guest.close()


@on_loop
async def test_watchers_and_typing() -> None:
    line = Line()
    await line.says(b"boot ")
    first, second = line.seat(), line.seat()
    await line.says(b"login:")
    assert await first.receive(11) == b"boot login:"
    assert await second.receive(11) == b"boot login:"
    await first.type(b"root\n")
    assert await line.heard(5) == b"root\n"
    first.sock.close()
    await line.says(b"!")
    assert await second.receive(1) == b"!"
    line.console.end_watchers()
    assert await second.receive(1) == b""
    line.close()


@on_loop
async def test_one_writes_and_the_others_are_told() -> None:
    line = Line()
    anna, bert = line.seat("anna"), line.seat("bert")
    await anna.ask(ConsoleMode.WRITE)
    assert await anna.notice() == ConsoleNotice(writer=True)
    assert await bert.notice() == ConsoleNotice(writer=False, holder="anna")
    await bert.ask(ConsoleMode.WRITE)
    assert await bert.notice() == ConsoleNotice(writer=False, holder="anna")
    await bert.type(b"rm")
    await anna.type(b"ls\n")
    assert await line.heard(3) == b"ls\n"
    assert not line.heard_more()
    await bert.ask(ConsoleMode.TAKEOVER)
    assert await anna.notice() == ConsoleNotice(writer=False, holder="bert")
    assert await bert.notice() == ConsoleNotice(writer=True)
    assert line.taken_over == [("bert", "anna")]
    await anna.type(b"ls\n")
    await bert.type(b"id\n")
    assert await line.heard(3) == b"id\n"
    bert.sock.close()
    assert await anna.notice() == ConsoleNotice(writer=False)
    await anna.type(b"w\n")
    assert await line.heard(2) == b"w\n"
    assert await anna.notice() == ConsoleNotice(writer=True)
    assert line.taken_over == [("bert", "anna")]
    line.close()


@on_loop
async def test_who_only_watches_types_nothing() -> None:
    line = Line()
    seat = line.seat()
    await seat.ask(ConsoleMode.WATCH)
    assert await seat.notice() == ConsoleNotice(writer=False)
    await seat.type(b"halt\n")
    assert not line.heard_more()
    await seat.ask(ConsoleMode.WRITE)
    await seat.type(b"a")
    await seat.ask(ConsoleMode.WATCH)
    await seat.type(b"b")
    assert await line.heard(1) == b"a"
    assert not line.heard_more()
    line.close()


@on_loop
async def test_a_long_paste_waits_for_the_guest_and_arrives_whole() -> None:
    line = Line()
    seat = line.seat()
    loop = asyncio.get_running_loop()
    paste = bytes(range(256)) * 8192

    async def put() -> None:
        for at in range(0, len(paste), MAX_CONSOLE_BYTES - 1):
            await loop.sock_sendall(seat.sock, DATA + paste[at : at + MAX_CONSOLE_BYTES - 1])

    putting = asyncio.create_task(put())
    await asyncio.sleep(0.2)
    assert not putting.done(), "nobody held it back"
    assert await line.heard(len(paste)) == paste
    await putting
    line.close()


@on_loop
async def test_a_guest_that_takes_nothing_goes_on_being_seen() -> None:
    """What is typed is dropped then, and both its writer and who takes over are told."""
    line = Line()
    writer = line.seat("anna")
    await writer.ask(ConsoleMode.WRITE)
    assert (await writer.notice()).writer
    for _ in range(20):  # more than the sockets and the line keep
        await writer.type(b"x" * (MAX_CONSOLE_BYTES - 1))
        await asyncio.sleep(STALL_S)
    assert await writer.notice() == ConsoleNotice(writer=True, stalled=True)
    kept = len(line.console._typed)
    assert kept <= 2 * (MAX_CONSOLE_BYTES - 1)
    await line.says(b"still here")
    assert await writer.receive(10) == b"still here"
    other = line.seat("ben")
    await other.ask(ConsoleMode.TAKEOVER)
    assert (await other.notice()).stalled
    await other.type(b"lost")
    assert len(line.console._typed) == kept
    while line.console._stalled:
        assert set(await line.heard(1)) == {ord("x")}
        await asyncio.sleep(0)
    while line.console._typed:
        await line.heard(1)
        await asyncio.sleep(0)
    other.notices.clear()
    await other.type(b"again")
    while (last := await line.heard(1)) == b"x":
        pass
    assert last + await line.heard(4) == b"again"
    assert not (await other.notice()).stalled
    line.close()


@on_loop
async def test_a_slow_guest_that_lives_loses_nothing() -> None:
    line = Line()
    seat = line.seat()
    loop = asyncio.get_running_loop()
    paste = bytes(range(256)) * 4096

    async def put() -> None:
        for at in range(0, len(paste), MAX_CONSOLE_BYTES - 1):
            await loop.sock_sendall(seat.sock, DATA + paste[at : at + MAX_CONSOLE_BYTES - 1])

    putting = asyncio.create_task(put())
    heard = b""
    while len(heard) < len(paste):
        await asyncio.sleep(STALL_S * 0.8)
        heard += await line.heard(min(1 << 13, len(paste) - len(heard)))
    assert heard == paste
    await putting
    line.close()


@on_loop
async def test_nonsense_ends_the_watcher_alone() -> None:
    line = Line()
    bad, good = line.seat(), line.seat()
    for nonsense in (b"\x01{", b"\x07hello", b"\x01{}"):
        bad = line.seat()
        await bad._send(nonsense)
        assert await bad.receive(1) == b""
    await line.says(b"still here")
    assert await good.receive(10) == b"still here"
    line.close()


@on_loop
async def test_a_slow_watcher_is_let_go() -> None:
    line = Line()
    slow, quick = line.seat(), line.seat()
    chunk = b"x" * 65536
    for _ in range(64):
        await asyncio.get_running_loop().sock_sendall(line.guest, chunk)
        assert len(await quick.receive(len(chunk))) == len(chunk)
    taken = 0
    while part := await slow.receive(1):
        taken += len(part)
    assert taken < 64 * len(chunk)
    line.close()


@on_loop
async def test_a_guest_that_talks_while_the_ring_is_read_fills_no_memory() -> None:
    ours, guest = socket.socketpair()
    guest.setblocking(False)
    console = SerialConsole()
    console.attach(ours, hold=True)
    for _ in range(64):
        await asyncio.get_running_loop().sock_sendall(guest, b"x" * 65536)
    await asyncio.get_running_loop().sock_sendall(guest, b"end")
    await asyncio.sleep(0.05)
    assert console._held is not None
    assert len(console._held) <= (1 << 20) + 65536
    console.release(b"earlier")
    assert console.scrollback().endswith(b"xend")
    console.close()
    guest.close()


@on_loop
async def test_one_token_leaves_places_at_a_line_for_others() -> None:
    """From wherever it comes."""
    line = Line()
    loud = [line.console.watch("loud", f"192.0.2.{number}") for number in range(16)]
    with pytest.raises(MicaError) as caught:
        line.console.watch("loud", "198.51.100.1")
    assert caught.value.problem.code is ErrorCode.RATE_LIMITED
    assert "16 consoles are open on this serial line for the token loud" in str(caught.value)
    others = [line.console.watch(f"quiet-{number // 16}") for number in range(48)]
    with pytest.raises(MicaError) as caught:
        line.console.watch("late")
    assert caught.value.problem.code is ErrorCode.UNAVAILABLE
    loud.pop().close()
    others.pop().close()
    await asyncio.sleep(0.05)
    line.console.watch("loud").close()
    line.console.watch("late").close()
    for seat in (*loud, *others):
        seat.close()
    line.close()


@on_loop
async def test_notices_pile_up_for_nobody() -> None:
    """Somebody who never reads, while another takes the line over and over."""
    line = Line()
    asleep, restless = line.seat(), line.seat()
    await asleep.ask(ConsoleMode.WRITE)
    watcher = next(w for w in line.console._watchers if w.mode is ConsoleMode.WRITE)
    other = next(w for w in line.console._watchers if w is not watcher)
    for _ in range(20_000):
        line.console._ask(other, ConsoleMode.TAKEOVER)
        line.console._ask(watcher, ConsoleMode.TAKEOVER)
    assert all(len(w._queue) < 2000 for w in line.console._watchers)
    for _ in range(100):
        with contextlib.suppress(MicaError):
            line.console.watch().close()
    with pytest.raises(MicaError, match="end one"):
        line.console.watch()
    restless.sock.close()
    asleep.sock.close()
    line.close()


@given(st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_the_longest_overlap_counts_once(old: str, new: str) -> None:
    length = next(n for n in range(min(len(old), len(new)), -1, -1) if old.endswith(new[:n]))
    assert merge_overlap(old.encode(), new.encode()) == (old + new[length:]).encode()


def test_an_overlap_is_found_in_time() -> None:
    """A guest chooses these octets."""
    old, new = b"a" * 65536, b"a" * 65535 + b"b"
    began_s = time.monotonic()
    assert merge_overlap(old, new) == b"a" * 65536 + b"b"
    assert merge_overlap(b"", b"x") == b"x"
    assert merge_overlap(b"x", b"") == b"x"
    assert time.monotonic() - began_s < 5


def test_what_came_in_the_meantime_comes_first() -> None:
    async def story() -> None:
        ours, guest = socket.socketpair()
        guest.setblocking(False)
        console = SerialConsole()
        console.attach(ours, hold=True)
        await asyncio.get_running_loop().sock_sendall(guest, b"tick 3\ntick 4\n")
        await asyncio.sleep(0.01)
        assert console.scrollback() == b""
        console.release(b"tick 1\ntick 2\ntick 3\n")
        assert console.scrollback() == b"tick 1\ntick 2\ntick 3\ntick 4\n"
        console.close()
        guest.close()

    asyncio.run(story())


def test_the_last_words_are_kept() -> None:
    async def story() -> None:
        ours, guest = socket.socketpair()
        console = SerialConsole()
        console.attach(ours)
        guest.send(b"Power down")
        guest.close()
        console.drain()
        assert console.scrollback() == b"Power down"
        assert not console.attached

    asyncio.run(story())
