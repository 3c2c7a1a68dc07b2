"""Sending the log: order, reconnection, loss that is told, and a source that never waits."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from vmkernel.events import EventBus
from vmkernel.host.log_sockets import Connection, JournalSocket
from vmkernel.model import Subject
from vmkernel.syslog.feed import LogForwarding
from vmkernel.syslog.forwarder import SyslogForwarder
from vmkernel.syslog.message import Message
from vmkernel.syslog.target import SyslogTarget, parse_target

TIME = "2026-11-23T09:33:09.123Z"


def target(text: str = "tcp://collector:514") -> SyslogTarget:
    found = parse_target(text)
    assert found is not None
    return found


def message(text: str) -> Message:
    return Message(13, TIME, "t", text)


class Collector:
    """What arrives, and when it is there."""

    def __init__(self) -> None:
        self.up = True
        self.got: list[bytes] = []
        self.connections = 0
        self.breaks_after: int | None = None
        self.hangs = False

    async def connect(self, _: SyslogTarget) -> Connection:
        if not self.up:
            raise ConnectionRefusedError(111, "Connection refused")
        self.connections += 1
        return Wire(self)

    def texts(self) -> list[str]:
        return [data.rpartition(b"- - - ")[2].decode() for data in self.got]


class Wire(Connection):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def send(self, data: bytes) -> None:
        if self._collector.hangs:
            await asyncio.Event().wait()
        if self._collector.breaks_after is not None:
            if self._collector.breaks_after == 0:
                self._collector.breaks_after = None
                raise ConnectionResetError(104, "Connection reset by peer")
            self._collector.breaks_after -= 1
        self._collector.got.append(data)

    def close(self) -> None:
        pass


def forwarder(collector: Collector, *, to: str = "tcp://collector:514") -> SyslogForwarder:
    return SyslogForwarder(
        target(to),
        lambda: "mica1",
        connect=collector.connect,
        first_wait_s=0.01,
        grace_s=0.0,
        timeout_s=0.2,
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


def play(one: SyslogForwarder, story: Callable[[], Awaitable[None]]) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(one.run())
        try:
            await story()
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


def test_messages_arrive_in_order_with_their_lengths() -> None:
    collector = Collector()
    one = forwarder(collector)

    async def story() -> None:
        for number in range(50):
            one.put(message(f"m{number}"))
        await until(lambda: len(collector.got) == 50)

    play(one, story)
    assert collector.texts() == [f"m{number}" for number in range(50)]
    assert collector.connections == 1
    for data in collector.got:
        length, _, rest = data.partition(b" ")
        assert int(length) == len(rest)


def test_datagrams_have_no_frame() -> None:
    collector = Collector()
    one = forwarder(collector, to="udp://collector")

    async def story() -> None:
        one.put(message("x" * 5000))
        await until(lambda: collector.got)

    play(one, story)
    assert collector.got[0].startswith(b"<13>1 ")
    assert len(collector.got[0]) == 2048


def test_a_collector_that_is_away_is_a_finding_until_it_is_back() -> None:
    collector = Collector()
    collector.up = False
    one = forwarder(collector)

    async def story() -> None:
        one.put(message("early"))
        await until(one.findings)
        (finding,) = one.findings()
        assert finding.code == "syslog-unreachable"
        assert "tcp://collector:514: Connection refused; 1 messages wait." in finding.message
        collector.up = True
        await until(lambda: collector.got)
        assert collector.texts() == ["early"]
        assert one.findings() == ()

    play(one, story)


def test_a_broken_connection_loses_nothing_that_was_not_taken() -> None:
    collector = Collector()
    collector.breaks_after = 3
    one = forwarder(collector)

    async def story() -> None:
        for number in range(8):
            one.put(message(f"m{number}"))
        await until(lambda: len(collector.got) == 8)

    play(one, story)
    assert collector.texts() == [f"m{number}" for number in range(8)]
    assert collector.connections == 2


def test_a_collector_that_hangs_is_given_up() -> None:
    collector = Collector()
    collector.hangs = True
    one = forwarder(collector)

    async def story() -> None:
        one.put(message("m"))
        await until(one.findings)
        assert "no answer in time" in one.findings()[0].message
        collector.hangs = False
        await until(lambda: collector.got)

    play(one, story)


def test_what_does_not_fit_is_dropped_and_told() -> None:
    collector = Collector()
    collector.up = False
    one = forwarder(collector)

    async def story() -> None:
        for number in range(5000):
            one.put(message(f"m{number}"))
        await until(one.findings)
        assert "4096 messages wait, 904 were dropped" in one.findings()[0].message
        collector.up = True
        await until(lambda: len(collector.got) == 4097)

    play(one, story)
    assert b'log.lost [mica@32473 messages="904"]' in collector.got[0]
    assert collector.texts()[1:] == [f"m{number}" for number in range(904, 5000)]


def test_long_messages_fill_the_queue_by_their_length() -> None:
    collector = Collector()
    one = forwarder(collector)

    async def story() -> None:
        for _ in range(1000):
            one.put(message("x" * 9000))
        assert one._bytes <= 2 << 20
        assert one._dropped == 1000 - len(one._queue)

    play(one, story)


def test_events_and_lines_reach_a_real_collector(tmp_path: Path) -> None:
    """Over real sockets: journal's, TCP, then UDP; events from before are sent as well."""
    journal = tmp_path / "journal"
    bus = EventBus()
    host = Subject(kind="host", id="host")
    got: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int(await reader.readuntil(b" "))
                got.append(await reader.readexactly(length))
        writer.close()

    async def scenario() -> None:
        bus.publish("host.early", host, message="before all")
        server = await asyncio.start_server(collect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        forwarding = LogForwarding(bus, lambda: "mica1", journal=journal)
        forwarding.retarget(None)
        task = asyncio.create_task(forwarding.run())
        await asyncio.sleep(0)
        forwarding.retarget(f"tcp://127.0.0.1:{port}")
        await until(journal.exists)
        assert journal.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(b"<30>Nov 23 09:33:09 systemd[1]: a line", str(journal))
            bus.publish("host.late", host, message="after")
            await until(lambda: len(got) == 3)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.bind(("127.0.0.1", 0))
                udp.setblocking(False)
                forwarding.retarget(f"udp://127.0.0.1:{udp.getsockname()[1]}")
                await asyncio.sleep(0.1)
                await until(journal.exists)
                bus.publish("host.later", host, message="by datagram")
                async with asyncio.timeout(10):
                    got.append(await asyncio.get_running_loop().sock_recv(udp, 4096))
        assert forwarding.findings() == ()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        server.close()
        assert not journal.exists()

    asyncio.run(scenario())
    texts = sorted(data.decode().rpartition(" ")[2] for data in got)
    assert texts == sorted(["all", "line", "after", "datagram"])


def test_the_journal_never_waits_for_us(tmp_path: Path) -> None:
    source = JournalSocket(tmp_path / "s")
    lines: list[bytes] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(str(tmp_path / "s"))
            sender.send(b"one")
            sender.send(b"two")
        source.read(lines.append)
        source.read(lines.append)
    finally:
        source.close()
    assert lines == [b"one", b"two"]
    assert not os.path.lexists(tmp_path / "s")
