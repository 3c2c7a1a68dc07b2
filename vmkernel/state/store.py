"""The one holder of the host configuration: reads from memory, changes through the log.

          open()                     update(): change, then write, then answer
medium ----------> in memory (config) -------------------------------------------> medium
   | can't be read                       | write failed: memory stays as it was, `unavailable`
   v
shadow in /run (the last committed snapshot): a restart after the stick was pulled
   | none
   v
volatile: a fresh identity in memory, every change refused, a finding says so
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from vmkernel.host.files import read_limited
from vmkernel.model import ErrorCode, Finding, Severity
from vmkernel.state.codec import Snapshot, decode, encode
from vmkernel.state.config import HostConfig, TlsMaterial, decode_config, encode_config, new_config
from vmkernel.state.errors import StateError
from vmkernel.state.log import Found, StateLog
from vmkernel.state.upgrades import SCHEMA

__all__ = ["Change", "StateStore"]

_log = logging.getLogger(__name__)
_SHADOW_LIMIT = 2 << 20

Change = Callable[[HostConfig], HostConfig]


class StateStore:
    """Owns the configuration; changes are serialised and durable before they are answered."""

    def __init__(self, log: StateLog | None, *, shadow: Path | None = None) -> None:
        self._log = log
        self._shadow = shadow
        self._config: HostConfig | None = None
        self._lock = asyncio.Lock()
        self._findings: dict[str, Finding] = {}
        self._watchers: list[Callable[[HostConfig], None]] = []
        self._generation = 0
        self.first_boot = False
        """True if nothing was stored and this configuration is new."""

    @property
    def config(self) -> HostConfig:
        """The configuration as last committed."""
        assert self._config is not None, "the state is not open"
        return self._config

    @property
    def durable(self) -> bool:
        """False if the medium is missing or its last write failed."""
        return "state-not-durable" not in self._findings

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the medium."""
        return tuple(self._findings.values())

    def on_change(self, watcher: Callable[[HostConfig], None]) -> None:
        """Call `watcher` with each configuration that was committed."""
        self._watchers.append(watcher)

    def open(self, missing_reason: str = "no state partition was found") -> HostConfig:
        """Load the newest configuration (blocking; once, at start)."""
        found = self._load(missing_reason)
        if found is not None and found.snapshot is not None:
            try:
                self._take(found.snapshot)
                return self.config
            except StateError as error:
                found = None
                self._log = None
                self._not_durable(str(error))
        if found is not None and not found.lost:
            self.first_boot = True
            self._config = new_config()
            return self.config
        if found is not None:
            self._log = None
            self._not_durable(
                f"The state on the stick is damaged ({found.damaged} slots) or of a newer version; "
                "it is left as it is."
            )
        if not self._take_shadow():
            self._config = new_config()
        return self.config

    async def update(self, change: Change) -> HostConfig:
        """Replace the configuration by `change` of it; durable on return.

        `change` is called without other changes in between; its exceptions are passed on, and
        nothing changes. The write is completed even if the caller is cancelled, so that memory and
        medium stay the same.
        """
        return await asyncio.shield(asyncio.ensure_future(self._update(change)))

    async def commit(self, config: HostConfig) -> HostConfig:
        """Replace the configuration as a whole; durable on return."""
        return await self.update(lambda _: config)

    async def ensure_identity(
        self, make: Callable[[str, str], Awaitable[TlsMaterial]]
    ) -> TlsMaterial:
        """The API's certificate and key; made at first boot by `make(hostname, uuid)`.

        If nothing can be stored, they last as long as this process.
        """
        if self.config.tls is not None:
            return self.config.tls
        material = await make(self.config.hostname, self.config.uuid)

        def change(config: HostConfig) -> HostConfig:
            return msgspec.structs.replace(config, tls=material)

        try:
            await self.update(change)
        except StateError as error:
            _log.error("the new identity can't be kept: %s", error)
            self._config = change(self.config)
        return material

    async def _update(self, change: Change) -> HostConfig:
        async with self._lock:
            config = change(self.config)
            if config == self.config:
                return config
            if self._log is None:
                raise StateError(
                    ErrorCode.UNAVAILABLE,
                    "The change can't be saved: " + self._findings["state-not-durable"].message,
                )
            payload = encode_config(config)
            try:
                generation = await asyncio.to_thread(self._log.append, SCHEMA, payload)
            except OSError as error:
                message = (
                    f"The stick can't be written ({error.strerror}); check that it is plugged in."
                )
                self._not_durable(message)
                raise StateError(
                    ErrorCode.UNAVAILABLE, f"The change can't be saved: {message}"
                ) from error
            self._findings.pop("state-not-durable", None)
            self._config = config
            self._generation = generation
            self._write_shadow(Snapshot(SCHEMA, generation, payload))
        for watcher in self._watchers:
            watcher(config)
        return config

    def _load(self, missing_reason: str) -> Found | None:
        if self._log is None:
            self._not_durable(f"Changes can't be saved: {missing_reason}.")
            return None
        try:
            found = self._log.load(SCHEMA)
        except OSError as error:
            self._log = None
            self._not_durable(f"The state can't be read ({error.strerror}).")
            return None
        if found.damaged:
            _log.warning("%d slots of the state log are damaged", found.damaged)
        if found.newer_schema is not None:
            self._find(
                "state-of-newer-version",
                Severity.WARNING,
                f"Changes made by a newer version (schema {found.newer_schema}) are not in force.",
            )
        return found

    def _take(self, snapshot: Snapshot) -> None:
        self._config = decode_config(snapshot.schema, snapshot.payload)
        self._generation = snapshot.generation
        self._write_shadow(snapshot)
        _log.info("state: generation %d, schema %d", snapshot.generation, snapshot.schema)

    def _take_shadow(self) -> bool:
        """Fall back on the copy of the last commit that this boot keeps in memory."""
        if self._shadow is None:
            return False
        try:
            snapshot = decode(read_limited(self._shadow, _SHADOW_LIMIT))
        except OSError:
            return False
        if not isinstance(snapshot, Snapshot) or snapshot.schema > SCHEMA:
            return False
        self._config = decode_config(snapshot.schema, snapshot.payload)
        self._generation = snapshot.generation
        return True

    def _write_shadow(self, snapshot: Snapshot) -> None:
        if self._shadow is None:
            return
        temp = self._shadow.with_suffix(".new")
        try:
            temp.touch(mode=0o600)
            temp.write_bytes(encode(snapshot))
            temp.replace(self._shadow)
        except OSError as error:
            _log.warning("the copy of the state in memory can't be written: %s", error)

    def _not_durable(self, message: str) -> None:
        self._find("state-not-durable", Severity.ERROR, message)

    def _find(self, code: str, severity: Severity, message: str) -> None:
        if code not in self._findings:
            _log.warning("%s: %s", code, message)
        self._findings[code] = Finding(code=code, severity=severity, message=message)
