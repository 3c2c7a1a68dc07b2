"""The watch of a port: connections that hang cost nothing, an answer is seen at once."""

from __future__ import annotations

import socket
import time

from tests.framework.port_watch import PortWatch


def test_a_connection_that_hangs_does_not_hide_the_answer_to_a_later_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with PortWatch(port) as watch:
            assert not watch.answers()
            hanging, _ = server.accept()
            assert not watch.answers()
            later, _ = server.accept()
            later.close()
            began = time.monotonic()
            assert watch.answers()
            assert time.monotonic() - began < 1.0
            hanging.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with PortWatch(port) as watch:
        began = time.monotonic()
        assert not watch.answers()
        assert time.monotonic() - began > 0.05


def test_a_refusal_is_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with PortWatch(server.getsockname()[1]) as watch:
            assert not watch.answers()
            client, _ = server.accept()
            client.sendall(b"\x15\x03")
            assert watch.answers()
            client.close()
