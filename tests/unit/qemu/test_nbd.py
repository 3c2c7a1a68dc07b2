"""The NBD reader against a server of a few lines, and the extents that are made of its answers."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.framework.nbd_wire import (
    DISCONNECT,
    GREETING,
    OPT_GO,
    OPT_META,
    READ,
    chunk,
    read_option,
    read_request,
    reply,
)
from vmkernel.qemu.nbd import ALLOCATION, Extent, NbdError, NbdReader, extents_of

RUNS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), min_size=1, max_size=8)


@given(st.integers(0, 1000), RUNS, st.none() | RUNS)
def test_extents_say_what_each_octet_is(
    offset: int, allocation: list[tuple[int, int]], dirty: list[tuple[int, int]] | None
) -> None:
    def flat(runs: list[tuple[int, int]]) -> list[int]:
        return [flags for length, flags in runs for _ in range(length)]

    zeros = flat(allocation)
    changed = [1] * len(zeros) if dirty is None else flat(dirty)
    wanted = {
        offset + at: bool(zero & 2)
        for at, (zero, bit) in enumerate(zip(zeros, changed, strict=False))
        if bit & 1
    }
    found = extents_of(offset, allocation, dirty)
    told = {at: e.zero for e in found for at in range(e.offset, e.offset + e.length)}
    assert told == wanted
    for one, other in itertools.pairwise(found):
        assert one.offset + one.length <= other.offset
        assert one.offset + one.length < other.offset or one.zero is not other.zero


class _Server:
    """One export of 8 KiB: `x` in the first half, a hole in the other."""

    def __init__(
        self,
        *,
        refuse: bool = False,
        lie: bool = False,
        status: bytes | None = None,
        drops: int = 0,
    ) -> None:
        self.drops = drops
        """How many connections it closes right after their handshake."""
        self.refuse = refuse
        self.status = status
        self.lie = lie

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(GREETING)
            await reader.readexactly(4)
            await self._options(reader, writer)
            if self.drops:
                self.drops -= 1
                return
            while True:
                command, cookie, offset, length = await read_request(reader)
                if command == DISCONNECT:
                    return
                if command == READ:
                    data = struct.pack(">Q", offset) + b"x" * min(length, 4096 - offset)
                    chunk(writer, 0, 1, cookie + self.lie, data)
                    chunk(writer, 1, 2, cookie, struct.pack(">QI", 4096, 4096))
                else:
                    runs = struct.pack(">IIIII", 7, 4096, 0, 4096, 3)
                    runs = runs if self.status is None else self.status
                    for _ in range(100_000 if len(runs) > 1 << 16 else 0):
                        chunk(writer, 0, 5, cookie, runs)
                        await writer.drain()
                    chunk(writer, 1, 5, cookie, runs)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _options(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            option, _ = await read_option(reader)
            if option == OPT_META:
                if self.refuse:
                    reply(writer, option, (1 << 31) | 6, b"no such export")
                    return
                context = struct.pack(">I", 7) + ALLOCATION.encode()
                reply(writer, option, 4, context)
            if option == OPT_GO:
                reply(writer, option, 3, struct.pack(">HQH", 0, 8192, 3))
            reply(writer, option, 1, b"")
            if option == OPT_GO:
                return


def _with(folder: Path, server: _Server, tell: Callable[[Path], Awaitable[None]]) -> None:
    async def story() -> None:
        path = folder / "nbd.sock"
        async with await asyncio.start_unix_server(server.serve, path):
            await tell(path)

    asyncio.run(story())


def test_size_blocks_and_bytes_are_read(tmp_path: Path) -> None:
    async def tell(path: Path) -> None:
        nbd = await NbdReader.open(path, "disk", [ALLOCATION])
        assert nbd.size_bytes == 8192
        assert await nbd.status(0, 8192) == {ALLOCATION: [(4096, 0), (4096, 3)]}
        assert await nbd.read(0, 8192) == b"x" * 4096 + bytes(4096)
        await nbd.close()

    _with(tmp_path, _Server(), tell)


def test_a_refusal_is_told(tmp_path: Path) -> None:
    async def tell(path: Path) -> None:
        with pytest.raises(NbdError, match="no such export"):
            await NbdReader.open(path, "disk", [ALLOCATION])

    _with(tmp_path, _Server(refuse=True), tell)


def test_what_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    async def tell(path: Path) -> None:
        nbd = await NbdReader.open(path, "disk", [ALLOCATION])
        with pytest.raises(NbdError, match="understood"):
            await nbd.read(0, 8192)
        await nbd.close()

    _with(tmp_path, _Server(lie=True), tell)


@pytest.mark.parametrize(
    "status",
    [
        b"",
        struct.pack(">I", 7),
        struct.pack(">III", 7, 0, 0),
        struct.pack(">III", 8, 4096, 0),
        struct.pack(">III", 7, 4096, 0) + bytes(1 << 20),
    ],
    ids=["cut-off", "no-runs", "empty-run", "of-something-else", "without-end"],
)
def test_a_server_that_its_guest_has_taken_over(tmp_path: Path, status: bytes) -> None:
    """It neither lets its reader go round for ever nor fills its memory."""

    async def tell(path: Path) -> None:
        nbd = await NbdReader.open(path, "disk", [ALLOCATION])
        with pytest.raises(NbdError):
            await nbd.status(0, 8192)
        await nbd.close()

    _with(tmp_path, _Server(status=status), tell)


def test_nobody_there(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(NbdError, match="can't be opened"):
            await NbdReader.open(tmp_path / "none", "disk", [ALLOCATION])

    asyncio.run(story())


def test_extent_is_plain() -> None:
    assert extents_of(0, [(5, 2)], None) == [Extent(0, 5, True)]


@pytest.mark.parametrize("drops", [1, 2, 3])
def test_a_connection_that_is_closed_is_made_again(tmp_path: Path, drops: int) -> None:
    """A few times; a server that goes on closing them is given up."""

    async def tell(path: Path) -> None:
        nbd = await NbdReader.open(path, "disk", [ALLOCATION])
        await asyncio.sleep(0.05)  # it is closed by now
        if drops < 3:
            assert await nbd.read(0, 8192) == b"x" * 4096 + bytes(4096)
            assert await nbd.status(0, 8192) == {ALLOCATION: [(4096, 0), (4096, 3)]}
        else:
            with pytest.raises(NbdError, match="is gone"):
                await nbd.read(0, 8192)
        await nbd.close()

    _with(tmp_path, _Server(drops=drops), tell)


def test_a_server_that_has_ended_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "nbd.sock"
        server = await asyncio.start_unix_server(_Server(drops=1).serve, path)
        nbd = await NbdReader.open(path, "disk", [ALLOCATION])
        server.close()
        path.unlink()
        with pytest.raises(NbdError, match="can't be opened"):
            await nbd.read(0, 4096)
        await nbd.close()

    asyncio.run(story())


def test_a_server_that_says_nothing_is_given_up_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmkernel.qemu.nbd._ANSWER_S", 0.05)

    async def main() -> None:
        server = await asyncio.start_unix_server(lambda *_: None, tmp_path / "nbd")
        try:
            with pytest.raises(NbdError, match=r"no answer within 0\.05 s"):
                await NbdReader.open(tmp_path / "nbd", "disk0", ())
        finally:
            server.close()

    asyncio.run(main())
