"""Opening a VM's console or screen: a ticket, then a WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from remote_api.client.errors import UnreachableError
from remote_api.client.http.pinning import PinnedContext
from remote_api.client.sdk import Mica
from vmkernel.model import ConsoleKind, ConsoleMode

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = ["open_console"]

_OPEN_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 3.0


@contextlib.contextmanager
def open_console(
    mica: Mica,
    vm_id: str,
    kind: ConsoleKind = ConsoleKind.SERIAL,
    mode: ConsoleMode = ConsoleMode.WRITE,
) -> Iterator[ClientConnection]:
    """A console's WebSocket: `recv()` and `send()` bytes; of a serial line, a received `str` is a
    ConsoleNotice as JSON.
    """
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    transport = mica.transport
    ticket = mica.console_ticket(vm_id, kind, mode)
    host = urlsplit(transport.address)
    uri = f"wss://{host.netloc}{ticket.websocket}"
    context = None if transport.fingerprint is None else PinnedContext(transport.fingerprint)
    with contextlib.ExitStack() as stack:
        try:
            socket = stack.enter_context(
                connect(
                    uri,
                    ssl=context,
                    open_timeout=_OPEN_TIMEOUT_S,
                    close_timeout=_CLOSE_TIMEOUT_S,
                    compression=None,
                    max_size=1 << 20,
                    proxy=None,
                )
            )
        except (OSError, WebSocketException) as error:
            raise UnreachableError(
                f"can't connect to the console of VM {vm_id}: {error}"
            ) from error
        yield socket
