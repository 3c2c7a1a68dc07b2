"""Sends messages to a collector: callers put them into a bounded queue and never wait.

          target set             message            failure or time-out
  off ----------------> idle ----------------> sending -------------------> waiting 1 .. 20 s
   ^                     ^                        |  ^                           |
   +---- target unset ---+------ queue empty -----+  +------- connected ---------+

What doesn't fit is dropped, the oldest first, and counted; the collector gets the number. A
message leaves the queue once the kernel has it: syslog has no receipts, and messages in transit
when a connection breaks may be lost or (over TCP) sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from vmkernel import clock
from vmkernel.host.log_sockets import Connection, connect_tcp, connect_udp
from vmkernel.model import Finding
from vmkernel.model import Severity as FindingSeverity
from vmkernel.syslog.message import Facility, Message, Severity
from vmkernel.syslog.target import Protocol, SyslogTarget

__all__ = ["Connect", "SyslogForwarder"]

_log = logging.getLogger(__name__)

Connect = Callable[[SyslogTarget], Awaitable[Connection]]

_QUEUE_MESSAGES = 4096
_QUEUE_BYTES = 2 << 20
_UDP_BYTES = 2048
"""What every receiver should take (RFC 5426 section 3.2)."""
_TCP_BYTES = 8192
_TIMEOUT_S = 10.0
_FIRST_WAIT_S = 1.0
_LAST_WAIT_S = 20.0
_GRACE_S = 15.0
"""How long a collector may be away before that is worth a finding."""
_RESOLVE_AGAIN_S = 300.0
"""A UDP socket never learns that a name has moved."""


async def _connect(target: SyslogTarget) -> Connection:
    if target.protocol is Protocol.TCP:
        return await connect_tcp(target.host, target.port)
    return await connect_udp(target.host, target.port)


class SyslogForwarder:
    """One queue and its way out; `run` it for as long as there is a target."""

    def __init__(
        self,
        target: SyslogTarget,
        hostname: Callable[[], str],
        *,
        connect: Connect = _connect,
        first_wait_s: float = _FIRST_WAIT_S,
        grace_s: float = _GRACE_S,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self.target = target
        self._hostname = hostname
        self._connect = connect
        self._first_wait_s = first_wait_s
        self._grace_s = grace_s
        self._timeout_s = timeout_s
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._put = asyncio.Event()
        self._failing_since_s: float | None = None
        self._reason = ""

    def put(self, message: Message) -> None:
        """Take a message; never waits."""
        limit = _TCP_BYTES if self.target.protocol is Protocol.TCP else _UDP_BYTES
        data = message.encode(self._hostname(), limit)
        self._queue.append(data)
        self._bytes += len(data)
        while len(self._queue) > _QUEUE_MESSAGES or self._bytes > _QUEUE_BYTES:
            self._bytes -= len(self._queue.popleft())
            self._dropped += 1
        self._put.set()

    def findings(self) -> tuple[Finding, ...]:
        """A finding if the collector can't be reached."""
        since = self._failing_since_s
        if since is None or time.monotonic() - since < self._grace_s:
            return ()
        kept = f"{len(self._queue)} messages wait"
        lost = f", {self._dropped} were dropped" if self._dropped else ""
        return (
            Finding(
                code="syslog-unreachable",
                severity=FindingSeverity.WARNING,
                message=f"The log can't be sent to {self.target}: {self._reason}; {kept}{lost}.",
            ),
        )

    async def run(self) -> None:
        """Send until cancelled."""
        wait_s = self._first_wait_s
        while True:
            await self._something()
            connection: Connection | None = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await self._connect(self.target)
                wait_s = self._first_wait_s
                await self._send_all(connection)
            except (OSError, TimeoutError) as error:
                self._failed(error)
            finally:
                if connection is not None:
                    connection.close()
            if self._failing_since_s is not None:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _LAST_WAIT_S)

    async def _something(self) -> None:
        while not self._queue:
            self._put.clear()
            await self._put.wait()

    async def _send_all(self, connection: Connection) -> None:
        """Send messages as they arrive; OSError or TimeoutError if that fails."""
        udp = self.target.protocol is Protocol.UDP
        ends_s = time.monotonic() + _RESOLVE_AGAIN_S
        while not udp or time.monotonic() < ends_s:
            await self._something()
            data = self._queue[0]
            dropped = self._dropped
            async with asyncio.timeout(self._timeout_s):
                if dropped:
                    await connection.send(self._framed(self._told(dropped)))
                    self._dropped -= dropped
                await connection.send(self._framed(data))
            if self._queue and self._queue[0] is data:  # not dropped meanwhile
                self._bytes -= len(self._queue.popleft())
            self._succeeded()

    def _framed(self, data: bytes) -> bytes:
        if self.target.protocol is Protocol.UDP:
            return data
        return b"%d %s" % (len(data), data)

    def _told(self, dropped: int) -> bytes:
        message = Message(
            priority=Facility.LOCAL0 * 8 + Severity.WARNING,
            time=clock.now(),
            app="mica",
            kind="log.lost",
            data=(("messages", str(dropped)),),
            text=f"{dropped} messages before this one were dropped; the collector was away.",
        )
        return message.encode(self._hostname(), _UDP_BYTES)

    def _failed(self, error: OSError | TimeoutError) -> None:
        reason = "no answer in time" if isinstance(error, TimeoutError) else ""
        self._reason = reason or getattr(error, "strerror", None) or str(error) or "it failed"
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
            _log.warning("the log can't be sent to %s: %s", self.target, self._reason)

    def _succeeded(self) -> None:
        if self._failing_since_s is not None:
            self._failing_since_s = None
            _log.info("the log is sent to %s again", self.target)
