"""Targets of log messages: `udp://host[:port]` or `tcp://host[:port]`, as in `mica.toml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["DEFAULT_PORT", "Protocol", "SyslogTarget", "parse_target"]

DEFAULT_PORT = 514
_FORM = re.compile(
    r"(?P<protocol>udp|tcp)://(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9.-]+))"
    r"(?::(?P<port>\d{1,5}))?"
)


class Protocol(StrEnum):
    """How messages travel."""

    UDP = "udp"
    """RFC 5426: one datagram each; delivery isn't confirmed."""
    TCP = "tcp"
    """RFC 6587, with each message's length before it."""


@dataclass(frozen=True)
class SyslogTarget:
    protocol: Protocol
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


def parse_target(text: str) -> SyslogTarget | None:
    """Read a target; None if the text isn't one."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        return None
    return SyslogTarget(Protocol(match["protocol"]), match["v6"] or match["host"], port)
