"""A web server outside of the host: files, redirects, lies and broken connections."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["WebServer", "stored_zstd", "web_server"]

_RANGE = re.compile(r"bytes=(\d+)-\Z")


class WebServer:
    """What it serves is in `files`; how it misbehaves stands in the first part of the path.

    /file/NAME      as it should be, with ranges
    /plain/NAME     without ranges or validators
    /break/NAME     every answer breaks off after 1 MiB
    /longer/NAME    announces a byte more than comes
    /slow/NAME      a part, and then nothing
    /encoded/NAME   with a Content-Encoding that wasn't requested
    /to/URL         redirects there;  /loop/ to itself;  /status/CODE
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, str | None]] = []
        self.ending = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        self.address = f"127.0.0.1:{self.port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append((request.path, asked))
        _, way, rest = request.path.split("/", 2)
        if way in ("to", "loop", "status"):
            request.send_response(302 if way != "status" else int(rest))
            if way != "status":
                request.send_header("Location", rest if way == "to" else request.path)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data = self.files[rest]
        match = _RANGE.match(asked or "") if way != "plain" else None
        start = int(match[1]) if match else 0
        request.send_response(206 if match else 200)
        if way != "plain":
            request.send_header("ETag", '"one"')
        if match:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if way == "encoded":
            request.send_header("Content-Encoding", "gzip")
        longer = 1 if way == "longer" else 0
        request.send_header("Content-Length", str(len(data) - start + longer))
        request.end_headers()
        end = start + (1 << 20) if way in ("break", "slow") else len(data)
        try:
            request.wfile.write(data[start:end])
            request.wfile.flush()
            if way == "slow":
                self.ending.wait(60)
        except OSError:
            return
        if way in ("break", "slow", "longer"):
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def web_server(files: dict[str, bytes], *, certificate: Path | None = None) -> Iterator[WebServer]:
    """A running server; with TLS if a certificate (with its key, PEM) is given."""
    web = WebServer(files)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    thread = threading.Thread(target=web.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ending.set()
        web.server.shutdown()
        web.server.server_close()
        thread.join()


def stored_zstd(data: bytes) -> bytes:
    """A zstd frame of raw blocks (RFC 8878), for machines without the program."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58"
    step = 1 << 17
    for at in range(0, len(data), step):
        part = data[at : at + step]
        last = at + step >= len(data)
        frame += (len(part) << 3 | last).to_bytes(3, "little") + part
    return frame
