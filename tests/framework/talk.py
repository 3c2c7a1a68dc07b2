"""A conversation with a guest over its serial line, through the API's console."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import TracebackType

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from remote_api.client.consoles.websocket import open_console
from remote_api.client.sdk import Mica
from tests.framework.vm_story import folder_of_screens, vm_story

__all__ = ["Talk", "said_until"]

ANSWER_S = 120.0


def said_until(
    line: ClientConnection,
    pattern: str,
    timeout_s: float,
    story: Callable[[], str] = lambda: "",
) -> str:
    """What a line says until it has said `pattern`; notices are left out. `story` is added
    to the message if that does not come, or the line closes before."""
    text, end = "", time.monotonic() + timeout_s
    while not re.search(pattern, text):
        try:
            data = line.recv(timeout=max(0.0, end - time.monotonic()))
        except (TimeoutError, ConnectionClosed) as error:
            closed = isinstance(error, ConnectionClosed)
            why = "the console closed" if closed else f"not seen within {timeout_s:g} s"
            raise AssertionError(f"{pattern!r}: {why}\n{text[-3000:]}\n{story()}") from error
        text += data.decode(errors="replace") if isinstance(data, bytes) else ""
    return text


class Talk:
    """A guest that executes commands; a context."""

    def __init__(self, mica: Mica, vm_id: str) -> None:
        self._link = open_console(mica, vm_id)
        self._story = lambda: vm_story(mica, vm_id, folder_of_screens())

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
        return said_until(self._socket, pattern + r".*\n", timeout_s, self._story)

    def ask(self, command: str, pattern: str, timeout_s: float = ANSWER_S) -> str:
        """Give a command, and what is said until a line matches `pattern`."""
        self.say(command)
        return self.until(pattern, timeout_s)
