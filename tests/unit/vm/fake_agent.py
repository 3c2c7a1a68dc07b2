"""A guest agent that is a few lines: the protocol of qemu-ga's documentation on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from vmkernel.host.unix_socket import listen_stream

__all__ = ["FACTS", "FakeAgent"]

FACTS: dict[str, Any] = {
    "guest-info": {"version": "10.0.2"},
    "guest-get-host-name": {"host-name": "web-1"},
    "guest-get-osinfo": {
        "id": "debian",
        "pretty-name": "Debian GNU/Linux 13 (trixie)",
        "version-id": "13",
        "kernel-release": "6.12.48",
    },
    "guest-network-get-interfaces": [
        {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}]},
        {
            "name": "eth0",
            "hardware-address": "52:54:00:00:00:01",
            "ip-addresses": [
                {"ip-address-type": "ipv4", "ip-address": "192.0.2.7", "prefix": 24},
                {"ip-address-type": "ipv6", "ip-address": "fe80::1", "prefix": 64},
            ],
        },
    ],
    "guest-fsfreeze-status": "thawed",
    "guest-fsfreeze-freeze": 2,
    "guest-fsfreeze-thaw": 2,
    "guest-set-time": {},
}


class FakeAgent:
    """`answers`: command -> what it returns; a function of the arguments; an exception is a
    refusal; None is silence. `greeting` is sent before each answer to a sync."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = dict(FACTS)
        self.asked: list[str] = []
        self.greeting = b""
        self.raw: Callable[[str], bytes | None] = lambda _: None
        """What it sends instead of an answer."""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeAgent]:
        sock = listen_stream(self.path)
        sock.setblocking(False)
        server = await asyncio.start_unix_server(self._serve, sock=sock)
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._answer(json.loads(line.lstrip(b"\xff")), writer)
                await writer.drain()
        writer.close()

    def _answer(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        command = message["execute"]
        self.asked.append(command)
        if (instead := self.raw(command)) is not None:
            writer.write(instead)
            return
        if command == "guest-sync-delimited":
            done = json.dumps({"return": message["arguments"]["id"]}).encode()
            writer.write(self.greeting + b"\xff" + done + b"\n")
            return
        value = self.answers.get(command)
        if callable(value):
            value = value(message.get("arguments", {}))
        if isinstance(value, Exception):
            error = {"class": "GenericError", "desc": str(value)}
            writer.write(json.dumps({"error": error}).encode() + b"\n")
        elif value is not None:
            writer.write(json.dumps({"return": value}).encode() + b"\n")
