"""A conversation with a guest over its serial line, through the API's console."""

from __future__ import annotations

import re
import time
from types import TracebackType

from remote_api.client.consoles.websocket import open_console
from remote_api.client.sdk import Mica

__all__ = ["Talk"]

ANSWER_S = 120.0


class Talk:
    """A guest that executes commands; a context."""

    def __init__(self, mica: Mica, vm_id: str) -> None:
        self._link = open_console(mica, vm_id)

    def __enter__(self) -> Talk:
        self._socket = self._link.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._link.__exit__(kind, error, trace)

    def say(self, command: str) -> None:
        """Give a command and don't wait."""
        self._socket.send(command.encode() + b"\n")

    def until(self, pattern: str, timeout_s: float = ANSWER_S) -> str:
        """What it says until a line matches `pattern`."""
        text, end = "", time.monotonic() + timeout_s
        while not re.search(pattern + r".*\n", text):
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} did not come:\n{text[-3000:]}"
            data = self._socket.recv(timeout=left)
            text += data.decode(errors="replace") if isinstance(data, bytes) else ""
        return text

    def ask(self, command: str, pattern: str, timeout_s: float = ANSWER_S) -> str:
        """Give a command, and what is said until a line matches `pattern`."""
        self.say(command)
        return self.until(pattern, timeout_s)
