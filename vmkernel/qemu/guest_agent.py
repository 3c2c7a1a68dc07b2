"""The guest agent's protocol (docs/interop/qemu-ga-ref of QEMU): JSON by line over the channel that
the VM's QEMU serves, spoken by a guest that may be hostile.

QEMU takes one client at a time and the agent one command at a time. A session therefore connects,
finds the end of earlier messages (`guest-sync-delimited`: the answer follows a byte that no UTF-8
text has), asks, and disconnects. Nothing that the guest sends is trusted: every answer is bounded
in size and time, and what is shown of it is cut, cleaned and parsed.

Failures:
  AgentError            no answer, or an invalid one; the outcome is unknown
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
from typing import Annotated, Any, TypeVar

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.model import AgentInterface, GuestSystem
from vmkernel.qemu.answers import Chardev
from vmkernel.qemu.session import Qmp
from vmkernel.text import clean

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
"""How many answers to earlier sessions may be in the channel before ours."""
_ANSWER_MAX = 512 << 10
_CHUNK = 1 << 16
_DELIMITER = b"\xff"
_INTERFACES_MAX = 64
_ADDRESSES_MAX = 64
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for an agent, in seconds."""

    sync_s: float = 3.0
    """Until it shows that it is running."""
    answer_s: float = 10.0
    shutdown_s: float = 2.0
    """How long a refusal of a shutdown may take; an agent that accepts doesn't answer."""
    freeze_s: float = 30.0
    """A guest may have much to write before its file systems are frozen."""
    thaw_again_s: float = 0.5
    """The pause before a thaw without an answer is repeated; longer each time."""


Answer = TypeVar("Answer")
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]


class AgentError(Exception):
    """No usable answer arrived."""


class AgentRefusedError(AgentError):
    """The agent's own refusal, with its reason."""


async def agent_is_open(qmp: Qmp) -> bool:
    """True if a program in the guest has the channel open, as QEMU reports."""
    found = await qmp.ask("query-chardev", tuple[Chardev, ...])
    return any(item.label == CHANNEL and item.frontend_open for item in found)


@contextlib.asynccontextmanager
async def agent_session(link: socket.socket, patience: Patience) -> AsyncIterator[AgentSession]:
    """A session on a connected socket, which is closed at its end; AgentError if there is no
    answer.
    """
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
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Patience
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._held = bytearray()

    async def sync(self) -> None:
        """Discard what is left in the channel from earlier sessions, or from a malicious guest."""
        number = secrets.randbelow(1 << 31)
        try:
            async with asyncio.timeout(self._patience.sync_s):
                await self._send("guest-sync-delimited", {"id": number}, prefix=_DELIMITER)
                for _ in range(_STALE_MAX):
                    await self._until(_DELIMITER, _ANSWER_MAX)
                    line = await self._until(b"\n", _ANSWER_MAX)
                    if _is_answer(line.rpartition(_DELIMITER)[2], number):
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
        kind: type[Answer],
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        timeout_s = self._patience.answer_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(command, arguments)
                line = await self._until(b"\n", _ANSWER_MAX)
        except TimeoutError as error:
            raise AgentError(f"it did not answer {command} within {timeout_s:g} s") from error
        except OSError as error:
            raise AgentError(f"its channel is gone ({error.strerror or error})") from error
        try:
            answer = decode_json(line, _Answer)
            if answer.error is not msgspec.UNSET:
                words = clean(_refusal(answer.error)) or "no reason given"
                raise AgentRefusedError(f"it refused {command}: {words}")
            if answer.value is msgspec.UNSET:
                raise UndecodableError("no answer")
            return decode_json(answer.value, kind)
        except UndecodableError as error:
            raise AgentError(f"its answer to {command} can't be understood") from error

    # --- commands -----------------------------------------------------------------------------

    async def version(self) -> str:
        return clean((await self.ask("guest-info", _Info)).version)

    async def hostname(self) -> str:
        return clean((await self.ask("guest-get-host-name", _HostName)).host_name)

    async def system(self) -> GuestSystem:
        found = await self.ask("guest-get-osinfo", _System)
        return GuestSystem(
            id=clean(found.id),
            name=clean(found.pretty_name or found.name),
            version=clean(found.version_id or found.version),
            kernel=clean(found.kernel_release),
        )

    async def interfaces(self) -> tuple[AgentInterface, ...]:
        found = await self.ask("guest-network-get-interfaces", list[msgspec.Raw])
        shown = map(_interface, found[:_INTERFACES_MAX])
        return tuple(item for item in shown if item is not None and item.name not in ("", "lo"))

    async def shut_down(self) -> None:
        """Ask the guest to power off. The agent doesn't answer if it does: only a refusal, or a
        channel that is already closed, raises.
        """
        try:
            timeout_s = self._patience.shutdown_s
            arguments = {"mode": "powerdown"}
            await self.ask("guest-shutdown", msgspec.Raw, arguments, timeout_s=timeout_s)
        except AgentRefusedError:
            raise
        except AgentError as error:
            if not isinstance(error.__cause__, TimeoutError | ConnectionError | None):
                raise

    async def set_time(self, nanoseconds: int) -> None:
        """Set the guest's clock to a time since the epoch."""
        await self.ask("guest-set-time", msgspec.Raw, {"time": nanoseconds})

    async def freeze(self) -> int:
        """Freeze the guest's file systems; returns how many."""
        timeout_s = self._patience.freeze_s
        return await self.ask("guest-fsfreeze-freeze", Count, timeout_s=timeout_s)

    async def thaw(self) -> int:
        """Thaw them; returns how many were frozen."""
        return await self.ask("guest-fsfreeze-thaw", Count)

    async def is_frozen(self) -> bool:
        """True if file systems are frozen."""
        return await self.ask("guest-fsfreeze-status", str) == "frozen"

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
        """The bytes before `mark`; AgentError if that is more than `limit` bytes."""
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


class _Answer(msgspec.Struct):
    """Any answer."""

    value: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="return", default=msgspec.UNSET)
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Refusal(msgspec.Struct):
    desc: str = ""


class _Info(msgspec.Struct):
    version: str = ""


class _HostName(msgspec.Struct, rename="kebab"):
    host_name: str = ""


class _System(msgspec.Struct, rename="kebab"):
    id: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    version_id: str = ""
    kernel_release: str = ""


class _Address(msgspec.Struct, rename="kebab"):
    ip_address: str
    prefix: Annotated[int, msgspec.Meta(ge=0, le=128)] | None = None


class _Interface(msgspec.Struct, rename="kebab"):
    name: str
    hardware_address: str = ""
    ip_addresses: list[msgspec.Raw] = []


def _is_answer(line: bytes, number: int) -> bool:
    try:
        value = decode_json(line, _Answer).value
        return value is not msgspec.UNSET and decode_json(value, int) == number
    except UndecodableError:
        return False


def _refusal(error: msgspec.Raw) -> str:
    try:
        return decode_json(error, _Refusal).desc
    except UndecodableError:
        return ""


def _interface(item: msgspec.Raw) -> AgentInterface | None:
    try:
        found = decode_json(item, _Interface)
    except UndecodableError:
        return None
    mac = clean(found.hardware_address).lower()
    addresses = map(_address, found.ip_addresses[:_ADDRESSES_MAX])
    return AgentInterface(
        name=clean(found.name)[:64],
        mac=mac if _MAC.fullmatch(mac) else None,
        addresses=tuple(address for address in addresses if address is not None),
    )


def _address(item: msgspec.Raw) -> str | None:
    try:
        found = decode_json(item, _Address)
        address = ipaddress.ip_address(clean(found.ip_address))
    except ValueError:
        return None
    if found.prefix is None or found.prefix > address.max_prefixlen:
        return str(address)
    return f"{address}/{found.prefix}"
