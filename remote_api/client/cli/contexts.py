"""The hosts that a user knows: address, fingerprint and token, in a file only they can read.

{"version": 1, "current": NAME, "hosts": {NAME: {"address", "fingerprint_sha256", "token"}}}
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec

from remote_api.client.errors import ConflictError

__all__ = ["ContextStore", "KnownHost", "default_store"]

_VERSION = 1


class KnownHost(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one host."""

    address: str
    token: str | None = None
    fingerprint_sha256: str | None = None

    def __repr__(self) -> str:
        return f"KnownHost({self.address!r})"


class _Contents(msgspec.Struct, kw_only=True):
    version: int = _VERSION
    current: str | None = None
    hosts: dict[str, KnownHost] = {}


class ContextStore:
    """The file of known hosts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[str | None, dict[str, KnownHost]]:
        """The current host's name, and all by name."""
        contents = self._read()
        return contents.current, contents.hosts

    def get(self, name: str | None) -> KnownHost:
        """One host; the current one if no name is given. Raises ConflictError."""
        contents = self._read()
        wanted = name or contents.current
        if wanted is None and contents.hosts:
            raise ConflictError(
                "there is no current context; choose one with `mica context use NAME` or --host"
                f" NAME (contexts: {', '.join(sorted(contents.hosts))})"
            )
        if wanted is None:
            raise ConflictError(
                "no host is configured; add one with `mica claim` or `mica context add`"
            )
        if wanted not in contents.hosts:
            known = ", ".join(sorted(contents.hosts)) or "none"
            raise ConflictError(f"there is no context {wanted!r} (contexts: {known})")
        return contents.hosts[wanted]

    def put(self, name: str, host: KnownHost, *, use: bool = False, replace: bool = False) -> bool:
        """Remember a host; true if it is the current one then. It becomes that with `use`, or if
        there is none. Raises ConflictError if the name is taken, unless it may be replaced."""
        contents = self._read()
        if not replace:
            self._check_free(contents, name)
        contents.hosts[name] = host
        if use or contents.current is None:
            contents.current = name
        self._write(contents)
        return contents.current == name

    def check_free(self, name: str) -> None:
        """Raise ConflictError if a host of this name is known."""
        self._check_free(self._read(), name)

    def rename(self, name: str, new: str) -> None:
        """Know a host by another name, which must be free."""
        contents = self._read()
        if name not in contents.hosts:
            raise ConflictError(f"there is no context {name!r}; see `mica context list`")
        self._check_free(contents, new)
        contents.hosts[new] = contents.hosts.pop(name)
        if contents.current == name:
            contents.current = new
        self._write(contents)

    @staticmethod
    def _check_free(contents: _Contents, name: str) -> None:
        if name in contents.hosts:
            raise ConflictError(
                f"there is a context {name!r} for {contents.hosts[name].address} already; choose"
                " another name, or give --replace"
            )

    def repin(self, name: str | None, fingerprint: str) -> str:
        """Trust a known host (the current one without a name) by another fingerprint; its name."""
        contents = self._read()
        wanted = name or contents.current
        known = self.get(wanted)
        assert wanted is not None
        contents.hosts[wanted] = msgspec.structs.replace(known, fingerprint_sha256=fingerprint)
        self._write(contents)
        return wanted

    def use(self, name: str) -> None:
        """Make a known host the current one."""
        contents = self._read()
        if name not in contents.hosts:
            raise ConflictError(f"there is no context {name!r}; see `mica context list`")
        contents.current = name
        self._write(contents)

    def forget(self, name: str) -> None:
        """Forget a host and its token. If it was the current one, there is none then."""
        contents = self._read()
        if contents.hosts.pop(name, None) is None:
            raise ConflictError(f"there is no context {name!r}; see `mica context list`")
        if contents.current == name:
            contents.current = None
        self._write(contents)

    def _read(self) -> _Contents:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return _Contents()
        except OSError as error:
            raise ConflictError(f"can't read {self.path}: {error.strerror}") from error
        try:
            contents = msgspec.json.decode(raw, type=_Contents)
        except msgspec.DecodeError as error:
            raise ConflictError(f"{self.path} is damaged ({error}); repair or remove it") from error
        if contents.version != _VERSION:
            raise ConflictError(
                f"{self.path} was written by another version of mica"
                f" ({contents.version}); update this one"
            )
        return contents

    def _write(self, contents: _Contents) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=self.path.parent, prefix=".contexts-")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(contents), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise


def default_store() -> ContextStore:
    """The user's own file: $XDG_CONFIG_HOME/mica/contexts.json."""
    base = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(base) if base else Path.home() / ".config"
    return ContextStore(folder / "mica" / "contexts.json")
