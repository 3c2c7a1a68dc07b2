"""The serial line: scrollback, watchers, and that nobody holds up anybody."""

from __future__ import annotations

import asyncio
import socket

import pytest

from vmkernel.vm.console import Scrollback, SerialConsole, merge_overlap


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


async def receive(sock: socket.socket, count: int) -> bytes:
    sock.setblocking(False)
    data = b""
    while len(data) < count:
        part = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        if not part:
            break
        data += part
    return data


def test_watchers_and_typing() -> None:
    async def story() -> None:
        ours, guest = socket.socketpair()
        guest.setblocking(False)
        loop = asyncio.get_running_loop()
        console = SerialConsole()
        console.attach(ours)
        await loop.sock_sendall(guest, b"boot ")
        await asyncio.sleep(0.01)
        first, second = console.watch(), console.watch()
        await loop.sock_sendall(guest, b"login:")
        assert await receive(first, 11) == b"boot login:"
        assert await receive(second, 11) == b"boot login:"
        await loop.sock_sendall(first, b"root\n")
        assert await receive(guest, 5) == b"root\n"
        first.close()
        await loop.sock_sendall(guest, b"!")
        assert await receive(second, 1) == b"!"
        console.end_watchers()
        assert await receive(second, 1) == b""
        console.close()
        guest.close()

    asyncio.run(story())


def test_a_slow_watcher_is_let_go() -> None:
    async def story() -> None:
        ours, guest = socket.socketpair()
        guest.setblocking(False)
        console = SerialConsole()
        console.attach(ours)
        slow, quick = console.watch(), console.watch()
        loop = asyncio.get_running_loop()
        chunk = b"x" * 65536
        for _ in range(64):
            await loop.sock_sendall(guest, chunk)
            assert len(await receive(quick, len(chunk))) == len(chunk)
        slow.setblocking(False)
        taken = 0
        while part := await loop.sock_recv(slow, 1 << 20):
            taken += len(part)
        assert taken < 64 * len(chunk)
        console.close()
        guest.close()

    asyncio.run(story())


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
