"""The kernel's device events (NETLINK_KOBJECT_UEVENT), as they happen; only reads."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Uevent", "UeventSocket", "decode_uevent"]

_PROTOCOL = 15
_KERNEL_GROUP = 1
_BUFFER_BYTES = 1 << 20
_MESSAGE_BYTES = 8192


@dataclass(frozen=True)
class Uevent:
    """A device that was added, removed or changed."""

    action: str
    path: str
    properties: Mapping[str, str]

    @property
    def subsystem(self) -> str:
        """Such as `block`, `net`, `pci`."""
        return self.properties.get("SUBSYSTEM", "")


def decode_uevent(data: bytes) -> Uevent | None:
    """One message; None if it isn't from the kernel."""
    head, _, rest = data.partition(b"\0")
    action, at, path = head.decode(errors="replace").partition("@")
    if not at:
        return None
    pairs = (field.decode(errors="replace").partition("=") for field in rest.split(b"\0") if field)
    return Uevent(action, path, {key: value for key, _, value in pairs})


class UeventSocket:
    """Passes every event on; after an overrun it passes None: read everything again."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _PROTOCOL)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, handle: Callable[[Uevent | None], None]) -> None:
        """Pass on everything that is pending."""
        while True:
            try:
                data, sender = self._socket.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                handle(None)
                return
            if sender[0] == 0 and (event := decode_uevent(data)) is not None:
                handle(event)

    def close(self) -> None:
        self._socket.close()
