"""Applying `mica.toml` from the stick: read at every start, applied if its content is new.

             no file, or no setting in it -> nothing
same content as last applied            -> nothing
             not valid                    -> finding `mica-toml-invalid`, nothing of it applied
             can't be kept                -> finding `mica-toml-not-kept`, nothing of it applied
             otherwise                    -> into the state; event and finding `mica-toml-taken`
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from vmkernel import clock
from vmkernel.events import EventBus
from vmkernel.host.files import read_limited
from vmkernel.host.mounts import mount, unmount
from vmkernel.model import Finding, MicaError, Role, Severity, Subject, TokenSpec
from vmkernel.platform.mica_toml import MAX_BYTES, MicaToml, MicaTomlError, digest, parse
from vmkernel.state import HostConfig, NetworkSettings, StateStore, StoredToken

__all__ = ["FILE_NAME", "ReadStick", "StickSettings", "applied", "read_from_esp"]

_log = logging.getLogger(__name__)

FILE_NAME = "mica.toml"
_READ_TIMEOUT_S = 20.0
_SUBJECT = Subject(kind="host", id="host")

ReadStick = Callable[[Path, Path], bytes | None]
"""Reads the file of the stick's first partition, by way of a folder; see read_from_esp."""


def read_from_esp(esp: Path, place: Path) -> bytes | None:
    """The file's content; None if there is none. Blocks; OSError.

    The partition is mounted read-only and only for this moment: nothing on the stick is written,
    and the stick can be pulled at any other time.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount(esp, place, "vfat", "iocharset=utf8", read_only=True)
    try:
        return read_limited(place / FILE_NAME, MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    finally:
        unmount(place)


def applied(config: HostConfig, settings: MicaToml, sha256: str) -> HostConfig:
    """The configuration with the file's settings; what the file doesn't name stays."""
    network, access = settings.network, settings.access
    tokens = config.tokens
    if access.admin_token_sha256 is not None:
        token = StoredToken(
            id=access.admin_token_id,
            created_at=clock.now(),
            secret_sha256=access.admin_token_sha256,
            spec=TokenSpec(role=Role.ADMIN, description=f"from {FILE_NAME}"),
        )
        tokens = (*(known for known in tokens if known.id != token.id), token)
    return msgspec.structs.replace(
        config,
        hostname=settings.hostname or config.hostname,
        tokens=tokens,
        mica_toml_sha256=sha256,
        network=NetworkSettings(
            addresses=network.addresses,
            gateways=network.gateways,
            nameservers=network.nameservers,
            vlan=network.vlan,
            ntp_servers=settings.time.servers,
            syslog=settings.log.syslog,
        ),
    )


class StickSettings:
    """Applies the file at the start and remembers the result."""

    def __init__(
        self, store: StateStore, events: EventBus, place: Path, read: ReadStick = read_from_esp
    ) -> None:
        """`place` is where the partition is mounted for a moment."""
        self._store = store
        self._read = read
        self._events = events
        self._place = place
        self._finding: Finding | None = None

    def findings(self) -> tuple[Finding, ...]:
        """The result of this start's `mica.toml`."""
        return () if self._finding is None else (self._finding,)

    async def take(self, esp: Path) -> bool:
        """Read and apply the file; True if it changed the configuration. Never raises."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                data = await asyncio.to_thread(self._read, esp, self._place)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "no answer in time"
            self._find(
                "unreadable", Severity.WARNING, f"The stick's {FILE_NAME} can't be read: {reason}."
            )
            return False
        finally:
            with contextlib.suppress(OSError):
                self._place.rmdir()
        return data is not None and await self._take(data)

    async def _take(self, data: bytes) -> bool:
        sha256 = digest(data)
        if sha256 == self._store.config.mica_toml_sha256:
            return False
        try:
            settings = parse(data)
        except MicaTomlError as error:
            self._find(
                "invalid",
                Severity.ERROR,
                f"{FILE_NAME} on the stick is not valid and was not applied: {error}.",
            )
            return False
        if settings.says_nothing:
            return False
        try:
            await self._store.update(lambda config: applied(config, settings, sha256))
        except MicaError as error:
            self._find("not-kept", Severity.ERROR, f"{FILE_NAME} was not applied: {error}")
            return False
        self._find(
            "taken",
            Severity.INFO,
            f"{FILE_NAME} was applied from the stick at this start (SHA-256 {sha256[:16]}...).",
            sha256=sha256,
        )
        return True

    def _find(self, what: str, severity: Severity, message: str, **data: str) -> None:
        _log.log(logging.INFO if severity is Severity.INFO else logging.WARNING, "%s", message)
        code = f"mica-toml-{what}"
        self._finding = Finding(code=code, severity=severity, message=message)
        self._events.publish(f"host.{code}", _SUBJECT, message=message, data=data)
