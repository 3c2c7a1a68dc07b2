"""A network outside of the test machine that is real enough to be scanned from.

The emulator's own network only shows what is forwarded. Here the machine's card is a tap in a
network namespace of its own, with a DHCP server and a TCP scanner beside it (outside_worker.py).
Needs root.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from tests.framework import inputs
from tests.framework.ending import started

__all__ = ["OUTSIDE_SERVER", "OutsideNetwork"]

OUTSIDE_SERVER = "10.77.0.1"
"""Our address there, in a network of 24 bits."""


class OutsideNetwork:
    """The namespace; `tap_fd` is the machine's end of the wire.

    With a `tag`, all that is there is in that VLAN, and the wire is a datagram socket: a process
    tags the frames, because not every kernel can.
    """

    def __init__(self, tag: int | None = None) -> None:
        self.tap_fd = -1
        self._tag = tag
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = started(
                [sys.executable, "-m", "tests.framework.outside_worker", str(self._tag or "")],
                stdin=theirs.fileno(),
                cwd=inputs.REPOSITORY,
            )
        self._channel = ours
        ours.settimeout(20)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        if not fds:
            raise RuntimeError("no network namespace could be made; are we root?")
        self.tap_fd = fds[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.tap_fd >= 0:
            os.close(self.tap_fd)
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)

    def leased(self) -> str | None:
        """The address that the machine has got by DHCP."""
        address: str | None = self._ask({"do": "lease"}, timeout_s=20)["address"]
        return address

    def link_local_addresses(self) -> list[str]:
        """The machine's IPv6 link-local addresses."""
        found: list[str] = self._ask({"do": "neighbours"}, timeout_s=20)["addresses"]
        return found

    def open_ports(
        self, address: str, first: int = 1, last: int = 65535, *, timeout_s: float = 300
    ) -> list[int]:
        """The TCP ports that take a connection."""
        request = {"do": "scan", "address": address, "ports": [first, last]}
        found: list[int] = self._ask(request, timeout_s=timeout_s)["open"]
        return found

    def status_line(self, address: str, path: str) -> str:
        """The first line of the answer to a GET over HTTPS; empty if there is none."""
        request = {"do": "get", "address": address, "path": path}
        line: str = self._ask(request, timeout_s=20)["line"]
        return line

    def syslog_message(self) -> str:
        """The next message that arrives at our address by UDP, or has arrived since we exist."""
        text: str = self._ask({"do": "syslog"}, timeout_s=60)["text"]
        return text

    def _ask(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        assert self._channel is not None, "the network is not entered"
        self._channel.settimeout(timeout_s)
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            part = self._channel.recv(1 << 16)
            if not part:
                raise RuntimeError(f"the outside network ended during {request}")
            data += part
        answer: dict[str, Any] = json.loads(data)
        return answer
