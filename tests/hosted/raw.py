"""HTTP by hand over TLS: for clients that send half a request, or leave."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from tests.framework.hosted import HostedMica

__all__ = ["RawClient"]


class RawClient:
    """One TLS connection."""

    def __init__(self, host: HostedMica, timeout_s: float = 30.0) -> None:
        parts = urlsplit(host.address)
        self._host = host
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection((str(parts.hostname), int(parts.port or 443)), timeout_s)
        self.socket = context.wrap_socket(plain)

    def __enter__(self) -> RawClient:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, *lines: str, body: bytes = b"", token: bool = True) -> None:
        """Send a request's lines, then what comes of its body."""
        head = [lines[0], "Host: test", *lines[1:]]
        if token:
            head.append(f"Authorization: Bearer {self._host.token}")
        self.socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def status(self) -> int:
        """The status of the next answer's head, which is read to its end."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = self.socket.recv(1)
            if not data:
                raise ConnectionError(f"closed after {head!r}")
            head += data
        self.head = head.decode("latin-1")
        return int(self.head.split()[1])

    def rest(self) -> bytes:
        """All that still comes, until the host closes."""
        data = b""
        try:
            while part := self.socket.recv(65536):
                data += part
        except (ConnectionResetError, ssl.SSLError):
            pass
        return data
