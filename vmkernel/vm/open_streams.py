"""How many consoles there are of each token, whoever has their streams by now.

A stream's socket is given away, its other end to QEMU or to a serial line: nothing here hears of
its end. Which ones are still there is looked up when a place is wanting.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from vmkernel.host.unix_socket import present_sockets
from vmkernel.model import MicaError
from vmkernel.operations.places import Places

__all__ = ["OpenStreams"]

TOTAL, EACH = 192, 32
"""Twice what the API lets be open: as many again may wait for their tickets to be spent."""


class OpenStreams:
    """Owned by the event loop's thread."""

    def __init__(self, present: Callable[[], frozenset[int]] = present_sockets) -> None:
        self._places = Places("consoles are open", total=TOTAL, each=EACH)
        self._present = present
        self._open: dict[int, Callable[[], None]] = {}
        """What gives the place of each back, by its inode."""

    def take(self, actor: str) -> Callable[[], None]:
        """A place for a stream to come; what is returned gives it back. Raises `rate-limited`,
        `unavailable`."""
        try:
            return self._places.take(actor)
        except MicaError:
            self._sweep()
        return self._places.take(actor)

    def given(self, stream: socket.socket, release: Callable[[], None]) -> None:
        """The stream is given away now; its place is free once no process has it."""
        inode = os.fstat(stream.fileno()).st_ino
        if (before := self._open.pop(inode, None)) is not None:  # the number is used again
            before()
        self._open[inode] = release

    def _sweep(self) -> None:
        present = self._present()
        for inode in self._open.keys() - present:
            self._open.pop(inode)()
