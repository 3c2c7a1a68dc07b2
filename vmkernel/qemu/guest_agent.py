"""The guest agent's protocol (docs/interop/qemu-ga-ref of QEMU): JSON by line over the channel
that the VM's QEMU serves, spoken by a guest that may be hostile.

QEMU takes one client at a time and the agent one command at a time. A session therefore connects,
finds the end of whatever was said before (`guest-sync-delimited`: the answer follows an octet that
no UTF-8 text has), asks, and leaves. Nothing that the guest sends is believed: every answer is
bounded in size and time, and what is shown of it is cut, cleaned and parsed.

Failures:
  AgentError            nobody answers, or what comes is no answer; the outcome is unknown
    AgentRefusedError   the agent answered that it can't or won't
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from vmkernel.model import AgentInterface, GuestSystem
from vmkernel.qemu.session import Qmp

__all__ = [
    "AgentError",
    "AgentRefusedError",
    "AgentSession",
    "Patience",
    "agent_is_open",
    "agent_session",
]

CHANNEL = "agent"
"""The id of the channel's character device (devices/agent.py)."""

_STALE_MAX = 32
"""How many answers to others may lie in the channel before the one to us."""
_ANSWER_MAX = 512 << 10
_CHUNK = 1 << 16
_DELIMITER = b"\xff"
_TEXT_MAX = 256
_INTERFACES_MAX = 64
_ADDRESSES_MAX = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long an agent is waited for, in seconds."""

    sync_s: float = 3.0
    """Until it shows that it is there."""
    answer_s: float = 10.0
    shutdown_s: float = 2.0
    """How long a refusal of a shutdown may take; an agent that obeys answers nothing."""
    freeze_s: float = 30.0
    """A guest may have much to write before its file systems stand still."""
    thaw_again_s: float = 0.5
    """Before a thaw that got no answer is asked again; longer each time."""


class AgentError(Exception):
    """No usable answer came."""


class AgentRefusedError(AgentError):
    """The agent's own refusal, with its reason."""


async def agent_is_open(qmp: Qmp) -> bool:
    """True where a program in the guest has the channel open, as QEMU sees it."""
    found = await qmp.execute("query-chardev")
    return any(
        item.get("label") == CHANNEL and item.get("frontend-open") is True
        for item in (found if isinstance(found, list) else ())
        if isinstance(item, dict)
    )


@contextlib.asynccontextmanager
async def agent_session(link: socket.socket, patience: Patience) -> AsyncIterator[AgentSession]:
    """A session on a connected socket, which is closed at its end; AgentError where nobody
    answers."""
    reader, writer = await asyncio.open_unix_connection(sock=link)
    try:
        session = AgentSession(reader, writer, patience)
        await session.sync()
        yield session
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class AgentSession:
    """An agent that has answered."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Patience
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._held = bytearray()

    async def sync(self) -> None:
        """Throw away what was left in the channel by others, or by a guest that plays with us."""
        number = secrets.randbelow(1 << 31)
        try:
            async with asyncio.timeout(self._patience.sync_s):
                await self._send("guest-sync-delimited", {"id": number}, prefix=_DELIMITER)
                for _ in range(_STALE_MAX):
                    await self._until(_DELIMITER, _ANSWER_MAX)
                    line = await self._until(b"\n", _ANSWER_MAX)
                    answer = _decode(line.rpartition(_DELIMITER)[2])
                    if isinstance(answer, dict) and answer.get("return") == number:
                        return
                    await asyncio.sleep(0)  # a guest that never ends must not have us for itself
                raise AgentError("it sends more than an answer can be")
        except TimeoutError as error:
            raise AgentError("it does not answer") from error
        except OSError as error:
            raise AgentError(f"its channel is gone ({error.strerror or error})") from error

    async def ask(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """One command and its answer."""
        timeout_s = self._patience.answer_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(command, arguments)
                answer = _decode(await self._until(b"\n", _ANSWER_MAX))
        except TimeoutError as error:
            raise AgentError(f"it did not answer {command} within {timeout_s:g} s") from error
        except OSError as error:
            raise AgentError(f"its channel is gone ({error.strerror or error})") from error
        if not isinstance(answer, dict):
            raise AgentError(f"its answer to {command} can't be understood")
        if "error" in answer:
            detail = answer["error"]
            words = detail.get("desc") if isinstance(detail, dict) else None
            raise AgentRefusedError(f"it refused {command}: {clean(words) or 'no reason given'}")
        if "return" not in answer:
            raise AgentError(f"its answer to {command} can't be understood")
        return answer["return"]

    # --- commands -----------------------------------------------------------------------------

    async def version(self) -> str:
        """The agent's version."""
        found = await self.ask("guest-info")
        return clean(found.get("version")) if isinstance(found, dict) else ""

    async def hostname(self) -> str:
        """The guest's host name."""
        found = await self.ask("guest-get-host-name")
        return clean(found.get("host-name")) if isinstance(found, dict) else ""

    async def system(self) -> GuestSystem:
        """The guest's operating system."""
        found = await self.ask("guest-get-osinfo")
        fields = found if isinstance(found, dict) else {}
        return GuestSystem(
            id=clean(fields.get("id")),
            name=clean(fields.get("pretty-name") or fields.get("name")),
            version=clean(fields.get("version-id") or fields.get("version")),
            kernel=clean(fields.get("kernel-release")),
        )

    async def interfaces(self) -> tuple[AgentInterface, ...]:
        """The guest's network interfaces, but for its loopback."""
        found = await self.ask("guest-network-get-interfaces")
        items = found if isinstance(found, list) else []
        shown = (_interface(item) for item in items[:_INTERFACES_MAX] if isinstance(item, dict))
        return tuple(item for item in shown if item.name and item.name != "lo")

    async def shut_down(self) -> None:
        """Ask the guest to power off. The agent doesn't answer where it does: only a refusal, or
        a channel that is gone already, raises."""
        try:
            timeout_s = self._patience.shutdown_s
            await self.ask("guest-shutdown", {"mode": "powerdown"}, timeout_s=timeout_s)
        except AgentRefusedError:
            raise
        except AgentError as error:
            if not isinstance(error.__cause__, TimeoutError | ConnectionError | None):
                raise

    async def set_time(self, nanoseconds: int) -> None:
        """Set the guest's clock to a time since the epoch."""
        await self.ask("guest-set-time", {"time": nanoseconds})

    async def freeze(self) -> int:
        """Hold the guest's file systems still; how many they are."""
        timeout_s = self._patience.freeze_s
        return _count(await self.ask("guest-fsfreeze-freeze", timeout_s=timeout_s))

    async def thaw(self) -> int:
        """Let them go on; how many were held."""
        return _count(await self.ask("guest-fsfreeze-thaw"))

    async def is_frozen(self) -> bool:
        """True where file systems are held."""
        return bool(await self.ask("guest-fsfreeze-status") == "frozen")

    # --- octets -------------------------------------------------------------------------------

    async def _send(
        self, command: str, arguments: Mapping[str, Any] | None, *, prefix: bytes = b""
    ) -> None:
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = dict(arguments)
        self._writer.write(prefix + msgspec.json.encode(message) + b"\n")
        await self._writer.drain()

    async def _until(self, mark: bytes, limit: int) -> bytes:
        """What comes before `mark`; AgentError where that is more than `limit` octets."""
        searched = 0
        while (found := self._held.find(mark, searched)) < 0:
            searched = len(self._held)
            if searched > limit:
                raise AgentError("it sends more than an answer can be")
            data = await self._reader.read(_CHUNK)
            if not data:
                raise AgentError("its channel was closed") from ConnectionResetError()
            self._held += data
        data = bytes(self._held[:found])
        del self._held[: found + len(mark)]
        if len(data) > limit:
            raise AgentError("it sends more than an answer can be")
        return data


def clean(value: object) -> str:
    """A guest's text as it may be shown: on one line, without control characters, not long."""
    if not isinstance(value, str):
        return ""
    return _CONTROL.sub("", value[: 4 * _TEXT_MAX]).strip()[:_TEXT_MAX]


def _decode(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1 << 20:
        raise AgentError("its answer can't be understood")
    return value


def _interface(item: Mapping[str, Any]) -> AgentInterface:
    mac = clean(item.get("hardware-address")).lower()
    listed = item.get("ip-addresses")
    addresses = []
    for entry in (listed if isinstance(listed, list) else [])[:_ADDRESSES_MAX]:
        if isinstance(entry, dict) and (address := _address(entry)) is not None:
            addresses.append(address)
    return AgentInterface(
        name=clean(item.get("name"))[:64],
        mac=mac if _MAC.fullmatch(mac) else None,
        addresses=tuple(addresses),
    )


def _address(entry: Mapping[str, Any]) -> str | None:
    try:
        address = ipaddress.ip_address(clean(entry.get("ip-address")))
    except ValueError:
        return None
    prefix = entry.get("prefix")
    if isinstance(prefix, bool) or not isinstance(prefix, int):
        return str(address)
    return f"{address}/{prefix}" if 0 <= prefix <= address.max_prefixlen else str(address)
