"""The claim code as a file in /run: for the console's screen, and across a vmkernel restart.

Only root (or the hosted mode's user) may read it; it goes once the host is claimed.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import msgspec

from vmkernel.auth.claim import ClaimCode
from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.files import read_limited

__all__ = ["ClaimFile"]

_log = logging.getLogger(__name__)
_LIMIT = 4096


class _Content(msgspec.Struct, frozen=True):
    code: str
    fingerprint_sha256: str


class ClaimFile:
    """One file, `{"code", "fingerprint_sha256"}`, mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def previous(self) -> ClaimCode:
        """The code that an earlier vmkernel of this boot has shown, or else a new one."""
        try:
            content = decode_json(read_limited(self._path, _LIMIT), _Content)
        except (OSError, UndecodableError):
            return ClaimCode()
        return ClaimCode(content.code)

    def show(self, code: str | None, fingerprint_sha256: str) -> None:
        """Write the code, or remove the file if there is none."""
        if code is None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            return
        content = msgspec.json.encode(_Content(code, fingerprint_sha256))
        temp = self._path.with_suffix(".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                temp.unlink()
            temp.touch(mode=0o600, exist_ok=False)
            temp.write_bytes(content)
            temp.replace(self._path)
        except OSError as error:
            _log.warning("the claim code can't be written to %s: %s", self._path, error)
